/*
 * conf_demo - the setup that works with nothing at all: one app with well-known
 * keys, and the mock provider beside us (or OpenAI, when its key is there).
 *
 * It serves when the file names no provider, model, app or key (or there is no
 * file). Its keys are public: conf_check refuses them beyond loopback.
 */
#include "common/check.h"
#include "common/conf_load.h"

#define APPS_AND_KEYS                                                                              \
	"apps:\n"                                                                                  \
	"  - id: demo\n"                                                                           \
	"    name: Demo\n"                                                                         \
	"    org: demo\n"                                                                          \
	"keys:\n"                                                                                  \
	"  - kind: client\n"                                                                       \
	"    app: demo\n"                                                                          \
	"    secret: \"${DEMO_CLIENT_KEY:-" CONF_DEMO_CLIENT_KEY "}\"\n"                           \
	"    rate:\n"                                                                              \
	"      limit: 60\n"                                                                        \
	"  - kind: server\n"                                                                       \
	"    app: demo\n"                                                                          \
	"    secret: \"${DEMO_SERVER_KEY:-" CONF_DEMO_SERVER_KEY "}\"\n"                           \
	"  - kind: admin\n"                                                                        \
	"    secret: \"${PARLEY_ADMIN_KEY:-" CONF_DEMO_ADMIN_KEY "}\"\n"

const char conf_demo_mock[] = "providers:\n"
			      "  - name: mock\n"
			      "    base_url: \"http://127.0.0.1:8081/v1\"\n"
			      "models:\n"
			      "  - name: default\n"
			      "    targets:\n"
			      "      - provider: mock\n"
			      "        model: mock\n" APPS_AND_KEYS;

const char conf_demo_openai[] = "providers:\n"
				"  - name: openai\n"
				"    base_url: \"https://api.openai.com/v1\"\n"
				"    api_key: \"${OPENAI_API_KEY}\"\n"
				"models:\n"
				"  - name: default\n"
				"    targets:\n"
				"      - provider: openai\n"
				"        model: gpt-4o-mini\n"
				"    price:\n"
				"      input: 0.15\n"
				"      output: 0.60\n"
				"      cached: 0.075\n" APPS_AND_KEYS;

static void
mark_origin(struct conf_node *n)
{
	n->origin = "built-in demo setup";
	for (struct conf_node *child = n->first; child != NULL; child = child->next)
		mark_origin(child);
}

void
conf_demo_add(struct conf_loader *l)
{
	static const char *const lists[] = {"providers", "models", "apps", "keys"};
	struct conf_node *root = l->root;

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		if (conf_node_child(root, str_of(lists[i])) != NULL)
			return;
	}
	const char *key = conf_getenv(l, STR("OPENAI_API_KEY"));
	bool has_key = key != NULL && *key != '\0';
	check(conf_tree_parse(l, str_of(has_key ? conf_demo_openai : conf_demo_mock), true));
	for (struct conf_node *n = l->root->first, *next; n != NULL; n = next) {
		next = n->next;
		mark_origin(n);
		conf_node_move(root, n);
	}
	l->root = root;
}
