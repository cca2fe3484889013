# Parley - build, run, test.  `make` alone explains itself.
#
# One tree of objects per kind of build, build/<kind>/: release (default), debug,
# asan (address, undefined, leak), tsan, cover, fuzz (clang). The scripts behind
# the habits are in .ci/.

KIND     ?= release
B        := build/$(KIND)
PREFIX   ?= /usr/local
JOBS     ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules --no-print-directory
Q := $(if $(V),,@)
# A make of our own with all cores, unless the caller has said how many.
SUBMAKE   = $(MAKE) $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

ifeq ($(KIND),fuzz)
CC       := clang-14
else ifeq ($(origin CC),default)
CC       := gcc
endif
VERSION  := $(shell cat VERSION)

PKGS     := libh2o-evloop libevent hiredis libpq openssl yaml-0.1 libcurl jansson sqlite3 libsystemd
CPPFLAGS := -I. -I$(B)/gen -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -DPARLEY_VERSION='"$(VERSION)"' -DPARLEY_KIND='"$(KIND)"'
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wwrite-strings -Wvla -Wformat=2 -Wundef -Wold-style-definition
CFLAGS   += -std=gnu11 -g -fno-omit-frame-pointer -fno-common $(WARN)

ifeq ($(KIND),release)
CFLAGS   += -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
else ifeq ($(KIND),debug)
CFLAGS   += -O0
else ifeq ($(KIND),asan)
CFLAGS   += -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
LDFLAGS  += -fsanitize=address,undefined
else ifeq ($(KIND),tsan)
CFLAGS   += -O1 -fsanitize=thread
LDFLAGS  += -fsanitize=thread
else ifeq ($(KIND),cover)
CFLAGS   += -O0 --coverage
LDFLAGS  += --coverage
else ifeq ($(KIND),fuzz)
# An empty str is {NULL, 0}; NULL + 0, which clang complains of, is harmless and C2y allows it.
CFLAGS   += -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=pointer-overflow \
            -fno-sanitize-recover=undefined -Wno-error
LDFLAGS  += -fsanitize=address,undefined
FUZZ_ENGINE := -fsanitize=fuzzer
else
$(error KIND=$(KIND) is not one of release debug asan tsan cover fuzz)
endif

# System headers are not ours to warn about.
# h2o's private header wants klib's khash.h, which Debian does not install.
CPPFLAGS += -idirafter worker/http/klib
CPPFLAGS += $(subst -I/,-isystem /,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))
LIBS     := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread -lm
CMOCKA   := $(shell pkg-config --libs cmocka 2>/dev/null)
# phr_parse_request of ours must take the place of the library's: export it.
LDFLAGS  += -rdynamic

COMMON_SRC := $(wildcard common/*.c)
WORKER_SRC := $(wildcard worker/*.c worker/*/*.c)
MASTER_SRC := $(wildcard master/*.c)
LIB_SRC    := $(COMMON_SRC) $(WORKER_SRC) $(filter-out master/main.c,$(MASTER_SRC))
LIB        := $(B)/libparley.a

UNIT_SRC   := $(sort $(wildcard t/unit/*/*_test.c t/unit/*/*/*_test.c))
REPLAY_SRC := $(sort $(wildcard t/replay/*_test.c))
FUZZ_SRC   := $(sort $(wildcard t/fuzz/*_fuzz.c))
UNIT_BIN   := $(UNIT_SRC:%.c=$(B)/%)
REPLAY_BIN := $(REPLAY_SRC:%.c=$(B)/%)
FUZZ_BIN   := $(FUZZ_SRC:%.c=$(B)/%)
TOOLS      := $(patsubst loadtest/%,$(B)/%,$(filter-out loadtest/bench,$(patsubst %/,%,$(wildcard loadtest/*/))))

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-zA-Z_-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## compile everything (KIND=release|debug|asan|tsan|cover)
	@$(SUBMAKE) all

.PHONY: run
run: ## the server and, without a provider key, a mock model beside it: on 127.0.0.1:8080
	@.ci/install build
	@$(SUBMAKE) all
	@.ci/demo $(B)

.PHONY: all
all: $(B)/parleyd $(TOOLS)
	@:

$(B)/parleyd: $(B)/master/main.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(LIB) -Wl,--no-whole-archive $(LIBS)

$(LIB): $(LIB_SRC:%.c=$(B)/%.o)
	@rm -f $@; echo '  AR    $@'
	$(Q)ar rcs $@ $^

# Each folder of loadtest/ but bench/ is one program of that name.
define tool_rule
$(B)/$(1): $(patsubst %.c,$(B)/%.o,$(wildcard loadtest/$(1)/*.c loadtest/$(1)/*/*.c)) $(LIB)
	@echo '  LINK  $$@'
	$(Q)$(CC) $(LDFLAGS) -o $$@ $$(filter %.o,$$^) $(LIB) $(LIBS)
endef
$(foreach t,$(notdir $(TOOLS)),$(eval $(call tool_rule,$(t))))

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The migrations are part of the program.
$(B)/gen/worker/store/migrations.tbl: $(sort $(wildcard sql/*/*.sql)) .ci/embed_sql
	@mkdir -p $(@D)
	@echo '  GEN   $@'
	$(Q).ci/embed_sql $(filter %.sql,$^) > $@.new && mv $@.new $@
$(B)/worker/store/migrations.o: $(B)/gen/worker/store/migrations.tbl

# A unit or replay test is one program; a fake in t/ that defines a module's functions
# takes the place of the module in the library.
$(B)/t/unit/%: $(B)/t/unit/%.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS) $(CMOCKA)

$(B)/t/replay/%_test: $(B)/t/replay/%_test.o $(B)/t/replay/fake_loop.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) $(CMOCKA)

# Named, so that a new one does not make the rule above look nearer than its own.
$(patsubst %.c,$(B)/%.o,$(filter-out %_test.c,$(wildcard t/replay/*.c))):

# Turns are replayed between fakes of everything around them.
$(B)/t/replay/turn_%_test: $(B)/t/replay/turn_%_test.o $(B)/t/replay/fake_loop.o \
    $(B)/t/replay/fake_provider.o $(B)/t/replay/fake_store.o $(B)/t/replay/fake_backplane.o \
    $(B)/t/replay/fake_holds.o $(B)/t/replay/fake_knowledge.o $(B)/t/replay/turn_world.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) $(CMOCKA)

# Calls of a model, with a scripted upstream.
$(B)/t/replay/provider_test: $(B)/t/replay/provider_test.o $(B)/t/replay/fake_loop.o \
    $(B)/t/replay/fake_client.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) $(CMOCKA)

# A tool server, likewise.
$(B)/t/replay/mcp_upstream_test: $(B)/t/replay/mcp_upstream_test.o $(B)/t/replay/fake_loop.o \
    $(B)/t/replay/fake_client.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) $(CMOCKA)

# A fuzz target replays the files named on its command line; KIND=fuzz links libFuzzer instead.
$(B)/t/fuzz/%_fuzz: $(B)/t/fuzz/%_fuzz.o $(if $(FUZZ_ENGINE),,$(B)/t/fuzz/replay_main.o) $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) $(FUZZ_ENGINE) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

.PHONY: tests-build
tests-build: $(UNIT_BIN) $(REPLAY_BIN) $(FUZZ_BIN)

.PHONY: test
test: ## unit, replay, fuzz corpora, wire tests; T=text keeps the files whose path contains it
	@.ci/install build test
	@.ci/install browser || echo '  NOTE     no browser: its tests are skipped'
	@$(SUBMAKE) all tests-build
	@B=$(B) t/run $(T)

.PHONY: asan
asan: ## the whole suite with address, undefined and leak sanitizers
	@$(MAKE) KIND=asan test

.PHONY: valgrind
valgrind: ## unit and replay tests and fuzz corpora under valgrind
	@.ci/install build test lint
	@$(SUBMAKE) KIND=debug tests-build
	@B=build/debug WRAP='valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,possible' t/run $(T)

.PHONY: fuzz
fuzz: ## P=target (all in turn without) for TIME=60 seconds with libFuzzer
	@.ci/install build lint
	@$(SUBMAKE) KIND=fuzz $(if $(P),build/fuzz/t/fuzz/$(P)_fuzz,$(FUZZ_SRC:%.c=build/fuzz/%))
	@.ci/fuzz $(or $(TIME),60) $(P)

.PHONY: cover
cover: ## what the tests reach: a summary, and build/cover/html/index.html
	@.ci/install build test lint
	@find build/cover -name '*.gcda' -delete 2>/dev/null || true
	@$(MAKE) KIND=cover test
	@.ci/cover

.PHONY: bench
bench: ## the figures of loadtest/RESULTS.md on this machine
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run

.PHONY: bench-events
bench-events: ## one event to 10,000 subscribers: arrival, CPU, memory
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run events

.PHONY: bench-webhooks
bench-webhooks: ## deliveries of webhooks per second, with one of ten endpoints dead
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run webhooks

.PHONY: bench-tasks
bench-tasks: ## durable tasks per second, from the request to the stored end
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run tasks

.PHONY: bench-scale
bench-scale: ## the figures of very many WebSockets, and of other servers beside ours: half an hour, 16 GiB
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run --scale

.PHONY: bench-operations
bench-operations: ## the figures of upgrades, reloads, crashes, start and size: 3 minutes
	@.ci/install build test bench
	@$(SUBMAKE) all
	@loadtest/bench/run --operations

# Habits. Each says nothing when all is well.
C_FILES   = $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h')
SCRIPTS   = $(shell git grep -lI --untracked '^\#!.*[ /]\(ba\)\?sh')

.PHONY: tidy
tidy: $(B)/gen/worker/store/migrations.tbl ## clang-tidy and cppcheck
	@.ci/install build test lint
	@printf '%s\n' $(filter-out t/%,$(filter %.c,$(C_FILES))) | xargs -P$(JOBS) -n1 .ci/tidy $(CPPFLAGS)
	@cppcheck -q -j$(JOBS) --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppressions-list=.ci/cppcheck.suppress --include=.ci/cppcheck.h -I. -D_GNU_SOURCE common master worker loadtest

.PHONY: format
format: ## clang-format, in place
	@clang-format-14 -i $(C_FILES)

.PHONY: format-check
format-check: ## fails where clang-format would change something
	@clang-format-14 --dry-run -Werror $(C_FILES)

.PHONY: headers
headers: ## every header compiles alone
	@.ci/headers $(filter %.h,$(C_FILES)) -- $(CC) $(CPPFLAGS) $(CFLAGS)

.PHONY: layers
layers: ## includes point downwards only, as ARCHITECTURE.md says
	@.ci/layers

.PHONY: shellcheck
shellcheck: ## the scripts
	@shellcheck $(SCRIPTS)

.PHONY: ci
ci: ## before a big push: tests, sanitizers, linters
	@.ci/install build test lint
	@$(MAKE) format-check headers layers shellcheck gen-check tidy
	@$(MAKE) test
	@$(MAKE) asan
	@[ "$$(id -u)" != 0 ] || $(MAKE) image

.PHONY: image
image: ## the steps of Dockerfile without an engine, in bare root directories; needs root
	@.ci/install test
	@.ci/image

# What install puts where. DESTDIR is for packagers.
BINDIR    = $(DESTDIR)$(PREFIX)/bin
SHAREDIR  = $(DESTDIR)$(PREFIX)/share/parley
PROGRAMS  = parleyd parley_load mock_llm

$(B)/conf_gen: $(B)/common/gen/conf_gen.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

.PHONY: gen
gen: $(B)/conf_gen ## the files made from tables: etc/parley.yaml, etc/options.md
	$(Q)mkdir -p etc docs
	$(Q)$< sample >$(B)/parley.yaml && mv $(B)/parley.yaml etc/parley.yaml
	$(Q)$< reference >$(B)/options.md && mv $(B)/options.md etc/options.md

.PHONY: gen-check
gen-check: $(B)/conf_gen ## fails where `make gen` would change something
	@$< sample | diff -u etc/parley.yaml -
	@$< reference | diff -u etc/options.md -

.PHONY: install
install: build ## parleyd and its tools to PREFIX/bin, the sample config to PREFIX/share/parley
	install -d $(BINDIR) $(SHAREDIR)
	install -m 755 $(PROGRAMS:%=$(B)/%) $(BINDIR)
	install -m 644 etc/parley.yaml $(SHAREDIR)

DEB_VERSION ?= $(VERSION)
.PHONY: deb
deb: ## build/deb/parley_VERSION_ARCH.deb
	@.ci/install build
	@rm -rf build/deb
	@$(MAKE) install DESTDIR=build/deb/files PREFIX=/usr >/dev/null
	@etc/debian/build $(DEB_VERSION) build/deb/files build/deb

.PHONY: uninstall
uninstall: ## what install put there
	rm -f $(PROGRAMS:%=$(BINDIR)/%) $(SHAREDIR)/parley.yaml
	-rmdir $(SHAREDIR) 2>/dev/null

.PHONY: clean
clean: ## remove build/
	rm -rf build

.PRECIOUS: $(B)/%.o
-include $(shell find $(B) -name '*.d' 2>/dev/null)
