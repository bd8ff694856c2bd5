# Each recipe consists of commands that a person could type. `make` without a target lists the
# targets.

# The platform to build for, such as x86_64-unknown-linux-musl; if empty, that of this machine.
TARGET   = $(CARGO_BUILD_TARGET)
BIN      = $(or $(CARGO_TARGET_DIR),target)/$(if $(TARGET),$(TARGET)/)release
DEBUG    = $(or $(CARGO_TARGET_DIR),target)/debug
PREFIX   = /usr/local
PROGRAMS = inspect report pick-level extract-spots ransac refine local-affine deform mask rough flow clean-flow relax stitch fuse invmap apply-transform downsample transcode phantom

OUT     = demo/out
PHANTOM = demo/pair
FIXED   = $(PHANTOM)/fixed.zarr
MOVING  = $(PHANTOM)/moving.zarr
PARAMS  = $(if $(TRUTH),conf/params.demo.yaml)
TRUTH   = $(if $(filter $(PHANTOM)/fixed.zarr,$(FIXED)),$(PHANTOM))

help:
	@echo 'make demo      align a pair made on the spot (or FIXED=A MOVING=B [OUT=C] [PARAMS=D]) and report on it'
	@echo 'make check     the tests of library and programs: Rust alone, some minutes'
	@echo 'make test      every test, the workflows and other tools too; installs what they need into a cache'
	@echo 'make flags     the list of flags that parameters files may hold, from the programs'
	@echo 'make lint      format, clippy, documentation'
	@echo 'make deny      licences, sources and bans of dependencies; installs cargo-deny into a cache'
	@echo 'make bench     our programs beside those that they replace'
	@echo 'make install   programs, man pages, completions, into PREFIX=$(PREFIX)'
	@echo 'make dist      what install installs, workflows and documents as one archive in dist/ [TARGET=x86_64-unknown-linux-musl]'

build:
	cargo build --release --locked $(if $(TARGET),--target $(TARGET))

demo: build $(TRUTH:%=%/truth.json)
	VOXLOOM_BIN=$(BIN) workflows/align.sh $(FIXED) $(MOVING) $(OUT) $(if $(PARAMS),--params $(PARAMS))
	@VOXLOOM_BIN=$(BIN) workflows/summary.sh $(OUT) $(TRUTH)

$(PHANTOM)/truth.json: | build
	$(BIN)/phantom rounds --size 256 --output $(PHANTOM) --overwrite

# Tests that need data which we are not allowed to distribute are ignored by default. They run if
# the folder of these data exists.
SHARED  = $(or $(VOXLOOM_SHARED),$(wildcard ../shared))

check:
	cargo test --workspace --locked
	$(if $(SHARED),VOXLOOM_SHARED=$(abspath $(SHARED)) cargo test --workspace --locked --lib -- --ignored --skip s3)

# The programs that the workflows run are those that `make check` has built.
test: check
	tests/cloud.sh
	VOXLOOM_BIN=$(DEBUG) tests/workflows/run.sh
	VOXLOOM_BIN=$(abspath $(DEBUG)) $$(tests/tools/python.sh)/python -m pytest -q tests/interop
	VOXLOOM_BIN=$(abspath $(DEBUG)) python3 tests/campaign/flags.py

# Writes cli/config/flags.txt, the flags that parameters files can contain, from the programs.
flags:
	VOXLOOM_UPDATE=1 cargo test -p voxloom-bins --bin voxloom --locked || cargo test -p voxloom-bins --bin voxloom --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --features cuda -- -D warnings
	cargo clippy -p voxloom --lib --locked --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

deny:
	$$(tests/tools/cargo_deny.sh) --offline check licenses bans sources

bench: build
	for row in bucket startup resample spots match parity local_affine agreement phantom mesh stack apply field refine deform stiffness blockwise held_out invmap flow; do \
	    VOXLOOM_BIN=$(abspath $(BIN)) \
	    VOXLOOM_PEER_PYTHON=$$(tests/tools/python.sh bench/peers/requirements.txt bench/peers/requirements-nodeps.txt)/python \
	    VOXLOOM_SOFIMA_PYTHON=$$(bench/peers/sofima.sh) \
	    python3 bench/$$row.py || exit 1; \
	done

SHARE = $(DESTDIR)$(PREFIX)/share

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/fish/vendor_completions.d $(SHARE)/zsh/site-functions
	install -m 755 $(BIN)/voxloom $(DESTDIR)$(PREFIX)/bin
	$(BIN)/voxloom man $(SHARE)/man/man1
	$(BIN)/voxloom completions bash > $(SHARE)/bash-completion/completions/voxloom
	$(BIN)/voxloom completions fish > $(SHARE)/fish/vendor_completions.d/voxloom.fish
	$(BIN)/voxloom completions zsh > $(SHARE)/zsh/site-functions/_voxloom
	for program in $(PROGRAMS); do \
	    ln -sf voxloom $(DESTDIR)$(PREFIX)/bin/$$program && \
	    ln -sf voxloom $(SHARE)/bash-completion/completions/$$program && \
	    ln -sf voxloom.fish $(SHARE)/fish/vendor_completions.d/$$program.fish && \
	    $(BIN)/voxloom completions zsh $$program > $(SHARE)/zsh/site-functions/_$$program || exit 1; \
	done

# The archive is the same, byte for byte, for the same files, because entries are sorted, and owners
# and times are fixed. This needs GNU tar, which is called gtar where the system's own tar is
# another.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
HOST    = $(shell rustc -vV | sed -n 's/^host: //p')
NAME    = voxloom-$(VERSION)-$(or $(TARGET),$(HOST))
EPOCH   = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
TAR     = $(shell command -v gtar || echo tar)
SHA256  = $(shell command -v sha256sum || echo shasum -a 256)

dist:
	rm -rf dist/$(NAME) dist/$(NAME).tar.gz
	$(MAKE) install DESTDIR=$(CURDIR)/dist/$(NAME) PREFIX=
	cp -R README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff LICENSE LICENSE-APACHE LICENSE-MIT docs workflows conf dist/$(NAME)
	cd dist && $(TAR) --sort=name --format=ustar --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
	    --exclude='.?*' --exclude=__pycache__ -cf $(NAME).tar $(NAME)
	gzip -9nf dist/$(NAME).tar
	cd dist && $(SHA256) voxloom-$(VERSION)-*.tar.gz > SHA256SUMS
	rm -rf dist/$(NAME)

.PHONY: help build demo check test flags lint deny bench install dist
