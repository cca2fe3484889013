/*
 * conf_load - the steps between a tree of texts and a struct conf that can be
 * relied on. Each reports what is wrong through conf_fail() and goes on.
 * Private to the conf_*.c files.
 */
#ifndef COMMON_CONF_LOAD_H
#define COMMON_CONF_LOAD_H

#include "common/conf.h"
#include "common/conf_tree.h"

/* conf_demo: what serves when a file names no provider, model, app or key. */
extern const char conf_demo_mock[];   /* YAML: the lists, with the mock provider */
extern const char conf_demo_openai[]; /* the same with OpenAI */
void conf_demo_add(struct conf_loader *);

/* conf_env: the environment over the tree, then the flags over both. */
void conf_env_put(struct conf_loader *);
void conf_override_put(struct conf_loader *, const struct conf_override *);

/* conf_apply: the tree into l->conf; what is absent or wrong takes its default. */
void conf_apply(struct conf_loader *);

/* conf_check: what must be true between options. May drop keys without a secret. */
void conf_check_all(struct conf_loader *);

#endif
