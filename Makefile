# Parley - build, run, test.  `make` alone explains itself.
#
# One tree of objects per kind of build: build/<kind>/, kind is one of
# release (default), debug, asan (address + undefined + leak), tsan, cover.

KIND     ?= release
CC       ?= gcc
B        := build/$(KIND)
PREFIX   ?= /usr/local
JOBS     ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules
Q := $(if $(V),,@)

VERSION  := $(shell cat VERSION)

PKGS     := libh2o-evloop libevent hiredis libpq openssl yaml-0.1 libcurl jansson sqlite3 libsystemd
CPPFLAGS += -I. -I$(B)/gen -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -DPARLEY_VERSION='"$(VERSION)"' -DPARLEY_KIND='"$(KIND)"'
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
else
$(error KIND=$(KIND) is not one of release debug asan tsan cover)
endif

# System headers are not ours to warn about.
DEPFLAGS  = $(subst -I/,-isystem /,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))
LIBS      = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread -lm
CPPFLAGS += $(DEPFLAGS)
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
	@awk -F':.*## ' '/^[a-zA-Z_-]+:.*## /{printf "  %-14s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## compile everything (KIND=release|debug|asan|tsan|cover)
	@$(MAKE) --no-print-directory -j$(JOBS) all

.PHONY: all
all: $(if $(wildcard master/main.c),$(B)/parleyd) $(TOOLS)

$(B)/parleyd: $(B)/master/main.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(LIB) -Wl,--no-whole-archive $(LIBS)

$(LIB): $(LIB_SRC:%.c=$(B)/%.o)
	@rm -f $@; echo '  AR    $@'
	$(Q)ar rcs $@ $^

# Each folder of loadtest/ but bench/ is one program of that name.
define tool_rule
$(B)/$(1): $(patsubst %.c,$(B)/%.o,$(wildcard loadtest/$(1)/*.c)) $(LIB)
	@echo '  LINK  $$@'
	$(Q)$(CC) $(LDFLAGS) -o $$@ $$(filter %.o,$$^) $(LIB) $(LIBS)
endef
$(foreach t,$(notdir $(TOOLS)),$(eval $(call tool_rule,$(t))))

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# A unit or replay test is one program; a fake in t/ that defines a module's functions
# takes the place of the module in the library.
$(B)/t/unit/%: $(B)/t/unit/%.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS) $(shell pkg-config --libs cmocka)

$(B)/t/replay/%_test: $(B)/t/replay/%_test.o $(patsubst %.c,$(B)/%.o,$(wildcard t/replay/fake_*.c)) $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) $(shell pkg-config --libs cmocka)

# A fuzz target replays the files named on its command line; `make fuzz` builds it with libFuzzer instead.
$(B)/t/fuzz/%_fuzz: $(B)/t/fuzz/%_fuzz.o $(B)/t/fuzz/replay_main.o $(LIB)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

.PHONY: tests-build
tests-build: $(UNIT_BIN) $(REPLAY_BIN) $(FUZZ_BIN)

.PRECIOUS: $(B)/%.o
-include $(shell find $(B) -name '*.d' 2>/dev/null)
