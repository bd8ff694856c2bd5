#!/usr/bin/env python3
"""Runs every program with extreme values of every flag, on small inputs.

Invalid values must be refused with a message: no run may panic, abort, hang, take more than 1 GB,
write more than 8000 bytes of messages, or end with another exit code than 0, 1, 2, 3 or 75; a run
that refuses its command line (2) writes nothing. The flags are taken from `--help`, so that new
ones are tested, too. The number of a run and the seed determine its command line.

    tests/campaign/flags.py [--runs N] [--first K] [--seed S] [--jobs J]

Programs are taken from $VOXLOOM_BIN, else from PATH. $VOXLOOM_CAMPAIGN is the default of --runs.
"""

import argparse
import collections
import concurrent.futures
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

SECONDS = 20
# a run that may be long gets SIGTERM after ENOUGH seconds; all must end within ENDING seconds of it
ENOUGH = 3
ENDING = 5
PEAK = 1 << 30
# limit of the address space, bytes: only an allocation whose size comes from an extreme value of a
# flag exceeds it
ADDRESSES = 16 << 30
TALK = 8000
CODES = {0, 1, 2, 3, 75}
CRASH = re.compile(r"panicked|a mistake in this program|memory allocation of|stack overflow|SIG[A-Z]{3,}")

NUMBERS = """0 -1 1 2 -0 +1 0.5 1.5 -0.1 NaN nan inf -inf infinity 1e308 -1e308 1e309 1e300 1e30 1e18 1e12 1e9 1e6 1e4
1e-4 1e-9 1e-30 1e-300 1e-308 5e-324 255 256 65535 65536 1000 100000 2147483647 2147483648 4294967295 4294967296
9007199254740993 9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616 -2147483649
-9223372036854775808 340282366920938463463374607431768211456""".split()
WORDS = [
    "", " ", ",", ",,", "1,", ",1", "a", "a,b", "a=b", "=", "..", "1..", "..1", "1..0", "0..0", "NaN..NaN", "true", "false",
    "null", "auto", "all", "0x10", "1_000", "1e", "1,5", "１２", "é", "µm", "😀", "\u202e", "e\u0301" * 40, "%s%n", "\n", "\t",
    "a\nb", "'", '"', "$(x)", "*", "?", "[", "[[", "**", "/", ".", "./", "/dev/null", "/dev/full", "/dev/stdin",
    "/dev/urandom", "/proc/self/mem", "/no/such/place", "file:///", "s3://bucket/key", "http://localhost:1/x", "-", "--", "1/1",
    "1/2", "0/0", "1/0", "18446744073709551615/18446744073709551615", "1/18446744073709551615", "1/9223372036854775808",
    "A" * 300, "A" * 20000, "9" * 400, "1," * 5000 + "1", "../" * 500, "\udcff\udcfe", "fixed.zarr", "truth.json",
    "points.csv", "spots.csv", "s.csv.receipt.json",
]
# arguments of a program besides the tested flags; outputs are relative to the folder of the run
BASES = {
    "inspect": [["{fixed}"], ["--suggest", "{fixed}", "{moving}"], ["{chain}", "{spots}"]],
    "report": [["{receipt}", "--fixed", "{fixed}", "--moving", "{moving}", "-o", "out.html"]],
    "pick-level": [["{fixed}", "-o", "out.txt", "--scratch", "scratch.zarr"]],
    "extract-spots": [["{fixed}", "-o", "out.csv", "--radius", "2..4"], ["{fixed}", "-o", "out.csv", "--exact", "--radius", "2..4"]],
    "ransac": [["{fixed}", "{moving}", "--fixed-spots", "{spots}", "--moving-spots", "{spots2}", "-o", "out.json"]],
    "refine": [["{fixed}", "{moving}", "--initial", "{matrix}", "-o", "out.json", "--max-iterations", "5", "--samples", "2000"],
               ["{fixed}", "{moving}", "-o", "out.json", "--search", "3", "--keep", "1", "--max-iterations", "2", "--samples", "500", "--levels", "1",
                "--resolution", "5"]],
    "local-affine": [["{fixed}", "{moving}", "--initial", "{matrix}", "-o", "out.zarr", "--radius", "2..3",
                      "--context-radius", "4vox", "--max-distance", "2"]],
    "deform": [["{fixed}", "{moving}", "--initial", "{matrix}", "-o", "out.zarr", "--iterations", "1", "--levels", "2"],
               ["{fixed}", "{moving}", "--initial", "{matrix}", "-o", "out.zarr", "--iterations", "1", "--levels", "2",
                "--model", "bspline"]],
    "invmap": [["{matrix}", "--onto", "{moving}", "-o", "out.zarr"], ["{chain}", "-o", "out.zarr"]],
    "apply-transform": [["{moving}", "--onto", "{fixed}", "-t", "{chain}", "-o", "out.zarr"],
                        ["{moving}", "--shape", "8,8,8", "--out-spacing", "2,2,2", "-t", "{matrix}", "-o", "out.zarr"],
                        ["--points", "{points}", "-t", "{chain}", "-o", "out.csv"]],
    "downsample": [["{fixed}", "-o", "out.zarr", "--levels", "1"], ["{fixed}", "-o", "out.zarr", "--with-original", "--levels", "1"]],
    "transcode": [["{fixed}", "--to", "zarr3", "-o", "out.zarr"], ["{fixed}", "--to", "tiff", "-o", "out.tif"],
                  ["{chain}", "--to", "field", "-o", "out.zarr", "--onto", "{fixed}"], ["{matrix}", "--to", "itk", "-o", "out.txt"]],
    "phantom": [["rounds", "--size", "32", "-o", "out"], ["score", "--truth", "{folder}", "--transform", "{chain}"]],
}
# values that are not given to flags in WRITTEN, so that no bug can damage files outside the test
NOT_WRITTEN = {"/", "file:///", "../" * 500, "."}
WRITTEN = {"output", "scratch", "receipt", "table", "matches"}
# flags with which a run may take arbitrarily long: it must only end when it gets SIGTERM
LONG = {
    "any": {"threads"},
    "refine": {"search", "keep", "samples", "max-iterations", "levels", "resolution", "scale-range", "fixed-spacing", "moving-spacing"},
    "ransac": {"max-iterations", "confidence"},
    "deform": {"iterations", "levels"},
    "local-affine": {"radius", "max-distance", "context-radius"},
    "phantom": {"size"},
}
HELD = ["--memory", "300MB", "--threads", "2"]


class Scene:
    """Small inputs that all runs share and that no run may change."""

    def __init__(self, folder, programs):
        self.folder, self.programs = folder, programs
        self.run("phantom", "rounds", "--size", "32,32,40", "--seed", "1", "-o", ".", "--overwrite", "--max-displacement", "1")
        for name in ("fixed", "moving"):
            self.run("extract-spots", f"{name}.zarr", "--radius", "2..4", "--border", "0", "-o", f"{name}.csv")
        with open(os.path.join(folder, "points.csv"), "w") as points:
            points.write("z_um,y_um,x_um,name\n" + "".join(f"{i % 5},{i % 7},{i % 11},p{i}\n" for i in range(60)))
        place = lambda name: os.path.join(folder, name)
        self.places = {
            "folder": folder, "fixed": place("fixed.zarr"), "moving": place("moving.zarr"), "spots": place("fixed.csv"),
            "spots2": place("moving.csv"), "chain": place("truth.json"), "matrix": place("truth_affine.json"),
            "points": place("points.csv"), "receipt": place("fixed.csv.receipt.json"),
        }

    def run(self, name, *arguments):
        done = subprocess.run([self.programs[name], *arguments, "-q"], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"the scene cannot be made: {name} {' '.join(arguments)}: {done.stderr}")

    def base(self, base):
        return [word.format(**self.places) for word in base]

    def state(self):
        found = {}
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with open(os.path.join(folder, name), "rb") as file:
                    found[os.path.join(folder, name)] = hash(file.read())
        return found


def flags_of(program):
    """The long flags of a program that `--help` lists, each with the name of its value (or none) and its known values."""
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    flags = {}
    pattern = re.compile(r"^ +(?:-\w, )?--([a-z][a-z0-9-]*)(?:[ =]\[?=?<([^>]*)>)?(.*)$", re.M)
    places = list(pattern.finditer(text))
    for place, after in zip(places, places[1:] + [None]):
        told = text[place.end():after.start() if after else None]
        known = re.findall(r"^ +- ([a-z0-9-]+)(?::|$)", told, re.M)
        known += [word.strip() for words in re.findall(r"\[possible values: ([^\]]*)\]", told) for word in words.split(",")]
        flags[place.group(1)] = (place.group(2), known)
    for known in ("help", "version"):
        flags.pop(known, None)
    if not flags:
        sys.exit(f"{program} --help lists no flags")
    return flags


def composed(name, chance):
    """A value of the form that a value name such as `Z,Y,X` requires, made of extreme numbers."""
    number = lambda: chance.choice(NUMBERS)
    if "Z,Y,X" in name or "N,..." in name or name == "N[,N...]":
        same = number()
        return chance.choice([
            ",".join([same] * 3), ",".join([number(), "1", "1"]), ",".join(["1", "1", number()]), ",".join(number() for _ in range(3)),
            same + ",1,1" + chance.choice(["", "nm", "um", "mm", "vox", "km"]), ",".join([same] * 2), ",".join([same] * 300),
        ])
    if "MIN..MAX" in name:
        return chance.choice([f"{number()}..{number()}", f"1..{number()}", f"{number()}..1", "..".join([number()] * 2)])
    if "LOW,HIGH" in name:
        return f"{number()},{number()}"
    if "K/N" in name:
        return f"{number()}/{number()}"
    if "=" in name:
        return chance.choice(["x=", "=", "a="]) + chance.choice(WORDS)
    if name == "SIZE":
        return number() + chance.choice(["", "B", "kB", "MB", "GiB", "TB", "EB"])
    if name == "UM":
        return number() + chance.choice(["", "um", "vox", "mm"])
    return number()


def value_of(name, known, chance):
    kind = chance.random()
    if known and kind < 0.3:
        return chance.choice(known)
    if kind < 0.65:
        return composed(name, chance)
    return chance.choice(NUMBERS) if kind < 0.8 else chance.choice(WORDS)


def without(words, flag, short):
    """A command line without a flag and its values."""
    kept, leave = [], False
    for word in words:
        if word in (f"--{flag}", short):
            leave = True
        elif leave and not word.startswith("--") and word != "-o" and word != "-t":
            continue
        else:
            leave = False
            kept.append(word)
    return kept


def command(number, seed, scene, flags, catalogue):
    """The program and the arguments of the run with this number."""
    chance = random.Random(f"{seed}-{number}")
    name, first = catalogue[number % len(catalogue)]
    words = scene.base(chance.choice(BASES[name])) + HELD
    chosen = [first] + chance.sample(sorted(flags[name]), chance.choice([0, 0, 0, 0, 1, 2]))
    for flag in chosen:
        value, known = flags[name][flag]
        words = without(words, flag, {"output": "-o", "transform": "-t"}.get(flag, "--" + flag))
        added = []
        given = lambda: value_of(value, known, chance)
        if flag in WRITTEN:
            given = lambda: next(word for word in iter(lambda: value_of(value, known, chance), None) if word not in NOT_WRITTEN)
        for _ in range(chance.choice([1, 1, 1, 1, 1, 1, 2])):
            if value is None:
                added.append(f"--{flag}" if chance.random() < 0.85 else f"--{flag}={value_of('N', known, chance)}")
            elif chance.random() < 0.8:
                added.append(f"--{flag}={given()}")
            else:
                added += [f"--{flag}", given()]
        # -q ends the values of the added flags, so that they do not take the arguments that follow
        words = words + added if chance.random() < 0.5 and "--" not in added else added + ["-q"] + words
    # a null byte cannot be in a command line
    return name, [word.replace("\0", "") for word in words]


def attempt(program, words, folder, patience):
    """Runs a program; returns its exit code, stderr, peak memory in bytes, whether it was stopped
    (None, `long` after SIGTERM or `deaf` after SIGKILL) and its wall seconds."""
    with open(os.path.join(folder, ".out"), "wb") as out, open(os.path.join(folder, ".err"), "wb") as err:
        started = time.monotonic()
        encoded = [os.fsencode(word) for word in [program, *words]]
        # a preexec_fn is not safe beside threads: the limits are set by a shell
        shell = ["sh", "-c", f"ulimit -v {ADDRESSES >> 10}; ulimit -c 0; ulimit -f {1 << 21}; exec \"$0\" \"$@\"", *encoded]
        child = subprocess.Popen(shell, cwd=os.path.join(folder, "run"), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        told = killed = None
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            now = time.monotonic()
            if told is None and now - started > patience:
                told = now
                child.terminate()
            if told is not None and killed is None and now - told > ENDING:
                killed = now
                child.kill()
            time.sleep(0.003)
        late = "deaf" if killed else "long" if told else None
        child.returncode = os.waitstatus_to_exitcode(status)
    with open(os.path.join(folder, ".err"), "rb") as err:
        talk = err.read(1 << 20)
    return child.returncode, talk, used.ru_maxrss << 10, late, time.monotonic() - started


def faults(code, talk, peak, late, left, may_be_long):
    text = talk.decode("utf-8", "replace")
    if late == "deaf":
        yield f"does not end {ENDING} s after SIGTERM"
    elif late and not may_be_long:
        yield f"works for more than {SECONDS} s"
    elif late and code not in (143, -15, 0, 3):
        yield f"ends with {code} after SIGTERM"
    elif late:
        pass
    elif code < 0 or code not in CODES:
        yield f"ends with {code}"
    if crash := CRASH.search(text):
        yield re.sub(r"\d+", "N", text[crash.start():crash.start() + 110].split("\n")[0])
    if peak > PEAK:
        yield f"takes {peak >> 20} MB"
    if len(talk) > TALK:
        yield f"says {len(talk)} bytes"
    if code == 2 and left:
        yield f"refuses the command line and leaves {left[:3]}"
    if code not in (0, 3) and not late and code >= 0 and not talk.strip():
        yield f"ends with {code} and says nothing"


def one(number, options, scene, flags, catalogue):
    name, words = command(number, options.seed, scene, flags, catalogue)
    folder = tempfile.mkdtemp(prefix="run-", dir=options.scratch)
    os.mkdir(os.path.join(folder, "run"))
    try:
        given = {word[2:].split("=")[0] for word in words if word.startswith("--")}
        if "--threads" in words and words[words.index("--threads") + 1] == HELD[-1]:
            given.discard("threads")
        may_be_long = bool(given & (LONG["any"] | LONG.get(name, set())))
        patience = ENOUGH if may_be_long else SECONDS
        code, talk, peak, late, seconds = attempt(scene.programs[name], words, folder, patience)
        left = sorted(os.listdir(os.path.join(folder, "run")))
        return number, name, words, code, list(faults(code, talk, peak, late, left, may_be_long)), seconds, talk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shown(name, words):
    quote = lambda word: word if re.fullmatch(r"[\w./:=,+@%-]+", word, re.A) else repr(word)
    text = " ".join([name, *map(quote, words)])
    return text if len(text) < 700 else text[:600] + f"... ({len(text)} letters)"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=int(os.environ.get("VOXLOOM_CAMPAIGN", "400")))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0)) // 2))
    parser.add_argument("--only", help="one program")
    parser.add_argument("--show", action="store_true", help="show each run")
    options = parser.parse_args()
    place = os.environ.get("VOXLOOM_BIN")
    programs = {name: os.path.join(place, name) if place else shutil.which(name) for name in BASES}
    programs = {name: os.path.abspath(path) for name, path in programs.items()}
    flags = {name: flags_of(program) for name, program in programs.items()}
    catalogue = [(name, flag) for name in flags for flag in flags[name] if options.only in (None, name)]
    random.Random(options.seed).shuffle(catalogue)
    with tempfile.TemporaryDirectory(prefix="voxloom-flags-") as scratch:
        options.scratch = scratch
        os.mkdir(os.path.join(scratch, "scene"))
        scene = Scene(os.path.join(scratch, "scene"), programs)
        before = scene.state()
        codes, kinds, slowest = collections.Counter(), collections.defaultdict(list), (0, "")
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            numbers = range(options.first, options.first + options.runs)
            for number, name, words, code, found, seconds, talk in pool.map(
                lambda n: one(n, options, scene, flags, catalogue), numbers
            ):
                codes[code] += 1
                if sum(codes.values()) % 500 == 0:
                    print(f"{sum(codes.values())} runs", file=sys.stderr, flush=True)
                slowest = max(slowest, (round(seconds, 1), shown(name, words)))
                for fault in found:
                    kinds[name, fault].append((number, shown(name, words)))
                    print(f"#{number} {fault}\n    {shown(name, words)}", flush=True)
                if options.show:
                    print(number, code, shown(name, words), talk[:300], flush=True)
        changed = scene.state() != before
    print(f"{options.runs} runs of {len(programs)} programs, {len(catalogue)} flags; exit codes {dict(sorted(codes.items()))}; "
          f"{sum(map(len, kinds.values()))} faults of {len(kinds)} kinds; the slowest took {slowest[0]} s: {slowest[1]}")
    for (name, fault), examples in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        print(f"{len(examples):5} x {name}: {fault}\n        #{examples[0][0]}: {examples[0][1]}")
    if changed:
        print("the inputs were changed")
    sys.exit(1 if kinds or changed else 0)


if __name__ == "__main__":
    main()
