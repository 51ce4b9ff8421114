# For those who expect one: all of it is cargo's and xtask's work.

DESTDIR ?= /
BIN ?= target/release

.PHONY: all check install deb

all:
	cargo build --release --workspace

check:
	cargo test --workspace

# The programs in $(BIN), built before, with all that belongs to them, below $(DESTDIR).
install: $(if $(filter target/release,$(BIN)),all)
	cargo xtask dist "$(DESTDIR)" --bin "$(BIN)"

deb: $(if $(filter target/release,$(BIN)),all)
	cargo xtask deb target/deb --bin "$(BIN)"
