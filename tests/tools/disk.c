/* A simulated disk for tests, preloaded into a program: power cuts and failing writes.
 *
 * DISK_DIR     the folder on the simulated disk; other files are not affected
 * DISK_SHADOW  a folder that receives what was synced: f<id>, the content of a file when it was
 *              last synced; d<id>, the entries of a folder at that time ("f 7 name" or
 *              "d 8 name"). DISK_DIR itself is d1. At the end it gets two files: `calls`, the
 *              number of calls that changed something; `failing`, the number of calls that
 *              DISK_FAIL names
 * DISK_CUT     the number of the call, among those that change something, at which the process
 *              ends with code 99, as in a power cut
 * DISK_FAIL    the call that fails with ENOSPC: "write", "behind" (the data are lost, which only
 *              fsync or close reports), "fsync", "close" or "rename"; or with EIO: "read", "open"
 *              (of a file that exists)
 * DISK_AT      N: the N-th such call fails (default: the first)
 * DISK_ROOM    the maximum length of a file, bytes
 *
 * cc -shared -fPIC -o disk.so disk.c -ldl
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 65536
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *watched, *shadow, *failing;
static long cut = -1, calls, fail_at = 1, failures, room = -1;
static char tracked[FILES], poisoned[FILES];
static struct { ino_t inode; long id; } known[1 << 17];
static long last_id;

static long *slot(ino_t inode) {
  unsigned long at = (inode * 0x9E3779B97F4A7C15ul) >> 47;
  while (known[at].id && known[at].inode != inode) at = (at + 1) & ((1 << 17) - 1);
  known[at].inode = inode;
  return &known[at].id;
}

static long id_of(ino_t inode) {
  long *id = slot(inode);
  if (!*id) *id = ++last_id;
  return *id;
}

__attribute__((constructor)) static void start(void) {
  struct stat about;
  watched = getenv("DISK_DIR");
  shadow = getenv("DISK_SHADOW");
  failing = getenv("DISK_FAIL");
  if (getenv("DISK_CUT")) cut = atol(getenv("DISK_CUT"));
  if (getenv("DISK_AT")) fail_at = atol(getenv("DISK_AT"));
  if (getenv("DISK_ROOM")) room = atol(getenv("DISK_ROOM"));
  if (watched && !stat(watched, &about)) id_of(about.st_ino);
}

__attribute__((destructor)) static void end(void) {
  const char *names[] = {"calls", "failing"};
  long counts[] = {calls, failures};
  for (int i = 0; shadow && i < 2; i++) {
    char name[4096];
    snprintf(name, sizeof name, "%s/%s", shadow, names[i]);
    FILE *out = fopen(name, "w");
    if (out) { fprintf(out, "%ld", counts[i]); fclose(out); }
  }
}

static int is_under(const char *path) { return watched && path && !strncmp(path, watched, strlen(watched)); }
static int is_tracked(int fd) { return fd >= 0 && fd < FILES && tracked[fd]; }

/* The caller holds the mutex. */
static void count(void) { if (++calls == cut) _exit(99); }

static int fails_with(const char *call, int error) {
  if (!failing || strcmp(failing, call) || ++failures != fail_at) return 0;
  errno = error;
  return 1;
}

static int fails(const char *call) { return fails_with(call, ENOSPC); }

static void copy(int from, int to) {
  static char buffer[1 << 16];
  long n, done = 0;
  while ((n = syscall(SYS_pread64, from, buffer, sizeof buffer, done)) > 0) {
    syscall(SYS_write, to, buffer, n);
    done += n;
  }
}

/* The caller holds the mutex. */
static void keep(int fd) {
  struct stat about;
  char name[4096], other[4100], self[64];
  if (!shadow || fstat(fd, &about)) return;
  int is_folder = S_ISDIR(about.st_mode);
  snprintf(name, sizeof name, "%s/%c%ld", shadow, is_folder ? 'd' : 'f', id_of(about.st_ino));
  snprintf(other, sizeof other, "%s.new", name);
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  int to = syscall(SYS_openat, AT_FDCWD, other, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (to < 0) abort();
  if (is_folder) {
    DIR *folder = opendir(self);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
      struct stat found;
      if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
      if (fstatat(fd, entry->d_name, &found, AT_SYMLINK_NOFOLLOW)) continue;
      dprintf(to, "%c %ld %s\n", S_ISDIR(found.st_mode) ? 'd' : 'f', id_of(found.st_ino), entry->d_name);
    }
    if (folder) closedir(folder);
  } else {
    int from = syscall(SYS_openat, AT_FDCWD, self, O_RDONLY, 0);
    if (from < 0) abort();
    copy(from, to);
    syscall(SYS_close, from);
  }
  syscall(SYS_close, to);
  syscall(SYS_rename, other, name);
}

static int open_at(int at, const char *path, int flags, int mode) {
  static int (*real)(int, const char *, int, ...);
  if (!real) real = dlsym(RTLD_NEXT, "openat64");
  int watch = is_under(path);
  pthread_mutex_lock(&mutex);
  int is_new = watch && (flags & O_CREAT) && access(path, F_OK);
  if (is_new) count();
  if (watch && !is_new && !access(path, F_OK) && fails_with("open", EIO)) {
    pthread_mutex_unlock(&mutex);
    return -1;
  }
  int fd = real(at, path, flags, mode);
  struct stat about;
  if (fd >= 0 && is_new && !fstat(fd, &about)) *slot(about.st_ino) = ++last_id;
  if (fd >= 0 && fd < FILES) { tracked[fd] = watch; poisoned[fd] = 0; }
  pthread_mutex_unlock(&mutex);
  return fd;
}

#define MODE(flags) ({ int mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, int); va_end(list); } mode; })
int open(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int at, const char *path, int flags, ...) { return open_at(at, path, flags, MODE(flags)); }
int openat64(int at, const char *path, int flags, ...) { return open_at(at, path, flags, MODE(flags)); }

#define REAL(name) static typeof(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define CHANGES(watch) do { if (watch) { pthread_mutex_lock(&mutex); count(); pthread_mutex_unlock(&mutex); } } while (0)

/* The result of a write of n bytes at an offset: -1, or the number of bytes to write. Sets *lost if
 * the data are to be lost without an error. */
static ssize_t admitted(int fd, size_t n, off64_t at, int *lost) {
  pthread_mutex_lock(&mutex);
  count();
  ssize_t result = fails("write") ? -1 : (ssize_t)n;
  if (result > 0 && fails("behind")) { poisoned[fd] = 1; *lost = 1; }
  pthread_mutex_unlock(&mutex);
  if (result > 0 && room >= 0 && at + (off64_t)n > room) {
    result = room - at;
    if (result <= 0) { errno = ENOSPC; result = -1; }
  }
  return result;
}

ssize_t write(int fd, const void *bytes, size_t n) {
  REAL(write);
  if (!is_tracked(fd) || !n) return real(fd, bytes, n);
  int lost = 0;
  off64_t at = lseek64(fd, 0, SEEK_CUR);
  ssize_t some = admitted(fd, n, at, &lost);
  if (some < 0) return -1;
  if (!lost) return real(fd, bytes, some);
  struct stat about;
  if (!fstat(fd, &about) && about.st_size < at + some && ftruncate(fd, at + some)) return -1;
  lseek64(fd, some, SEEK_CUR);
  return some;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
  REAL(pwrite64);
  if (!is_tracked(fd) || !n) return real(fd, bytes, n, at);
  int lost = 0;
  ssize_t some = admitted(fd, n, at, &lost);
  return some < 0 || lost ? some : real(fd, bytes, some, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }

/* Whether this read fails. */
static int unread(int fd) {
  if (!is_tracked(fd)) return 0;
  pthread_mutex_lock(&mutex);
  int bad = fails_with("read", EIO);
  pthread_mutex_unlock(&mutex);
  return bad;
}
ssize_t read(int fd, void *bytes, size_t n) { REAL(read); return unread(fd) ? -1 : real(fd, bytes, n); }
ssize_t pread64(int fd, void *bytes, size_t n, off64_t at) { REAL(pread64); return unread(fd) ? -1 : real(fd, bytes, n, at); }
ssize_t pread(int fd, void *bytes, size_t n, off_t at) { return pread64(fd, bytes, n, at); }

/* fsync: copies the file to DISK_SHADOW. The real disk is not synced, which would take time and is
 * not needed. */
static int synced(int fd, int (*real)(int)) {
  if (!is_tracked(fd)) return real(fd);
  pthread_mutex_lock(&mutex);
  count();
  int bad = poisoned[fd] || fails("fsync");
  poisoned[fd] = 0;
  if (bad) errno = ENOSPC; else keep(fd);
  pthread_mutex_unlock(&mutex);
  return bad ? -1 : 0;
}
int fsync(int fd) { REAL(fsync); return synced(fd, real); }
int fdatasync(int fd) { REAL(fdatasync); return synced(fd, real); }

int close(int fd) {
  REAL(close);
  int bad = 0;
  if (is_tracked(fd)) {
    int flags = fcntl(fd, F_GETFL);
    pthread_mutex_lock(&mutex);
    bad = poisoned[fd] || ((flags & O_ACCMODE) != O_RDONLY && fails("close"));
    tracked[fd] = poisoned[fd] = 0;
    pthread_mutex_unlock(&mutex);
  }
  int result = real(fd);
  if (bad) { errno = ENOSPC; return -1; }
  return result;
}

/* fcntl: a duplicated descriptor also reports the data that the first one has lost. */
static int control(int fd, int what, void *argument, int (*real)(int, int, ...)) {
  int result = real(fd, what, argument);
  if ((what == F_DUPFD || what == F_DUPFD_CLOEXEC) && result >= 0 && result < FILES && is_tracked(fd)) {
    pthread_mutex_lock(&mutex);
    tracked[result] = 1;
    poisoned[result] = poisoned[fd];
    pthread_mutex_unlock(&mutex);
  }
  return result;
}
#define ARGUMENT(last) ({ va_list list; va_start(list, last); void *argument = va_arg(list, void *); va_end(list); argument; })
int fcntl(int fd, int what, ...) { REAL(fcntl); return control(fd, what, ARGUMENT(what), real); }
int fcntl64(int fd, int what, ...) { REAL(fcntl64); return control(fd, what, ARGUMENT(what), real); }

int rename(const char *from, const char *to) {
  REAL(rename);
  int watch = is_under(to);
  CHANGES(watch);
  if (watch) {
    pthread_mutex_lock(&mutex);
    int bad = fails("rename");
    pthread_mutex_unlock(&mutex);
    if (bad) return -1;
  }
  return real(from, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  struct stat about;
  CHANGES(is_under(path));
  int result = real(path, mode);
  if (!result && is_under(path) && !stat(path, &about)) {
    pthread_mutex_lock(&mutex);
    *slot(about.st_ino) = ++last_id;
    pthread_mutex_unlock(&mutex);
  }
  return result;
}

int unlink(const char *path) { REAL(unlink); CHANGES(is_under(path)); return real(path); }
