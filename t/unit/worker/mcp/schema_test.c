/* schema: what matches and what does not, keyword by keyword; the bounds. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "worker/mcp/schema.h"

struct trial {
	const char *schema, *value;
	const char *why; /* NULL: it matches */
};

static const struct trial trials[] = {
    {"true", "1", NULL},
    {"false", "1", "nothing is allowed here."},
    {"{}", "null", NULL},
    {"{\"type\":\"string\"}", "\"a\"", NULL},
    {"{\"type\":\"string\"}", "1", "expected a string."},
    {"{\"type\":\"integer\"}", "1.0", NULL},
    {"{\"type\":\"integer\"}", "1.5", "expected an integer."},
    {"{\"type\":\"number\"}", "1", NULL},
    {"{\"type\":[\"string\",\"null\"]}", "null", NULL},
    {"{\"type\":[\"string\",\"null\"]}", "1", "expected string or null."},
    {"{\"enum\":[\"a\",1]}", "1", NULL},
    {"{\"enum\":[\"a\",1]}", "\"b\"", "expected one of \"a\", 1."},
    {"{\"const\":1}", "1.0", NULL},
    {"{\"const\":1}", "2", "expected another, fixed value."},
    {"{\"required\":[\"a\"]}", "{}", "\"a\" is required."},
    {"{\"required\":[\"a\"]}", "[]", NULL},
    {"{\"properties\":{\"a\":{\"properties\":{\"b\":{\"type\":\"string\"}}}}}", "{\"a\":{\"b\":1}}",
	"a.b: expected a string."},
    {"{\"properties\":{\"a\":{\"items\":{\"type\":\"integer\"}}}}", "{\"a\":[1,\"x\"]}",
	"a[1]: expected an integer."},
    {"{\"properties\":{\"a\":{}},\"additionalProperties\":false}", "{\"a\":1,\"b\":2}",
	"\"b\" is not known."},
    {"{\"additionalProperties\":{\"type\":\"string\"}}", "{\"b\":2}", "b: expected a string."},
    {"{\"patternProperties\":{\"^x\":{}},\"additionalProperties\":false}", "{\"xy\":1}", NULL},
    {"{\"properties\":{\"a\":{\"type\":\"string\"}}}", "{\"a\":null}", NULL},
    {"{\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[\"a\"]}", "{\"a\":null}",
	"a: expected a string."},
    {"{\"propertyNames\":{\"maxLength\":1}}", "{\"ab\":1}", "\"ab\" is no name that is allowed."},
    {"{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"a\":1}", "\"b\" is required."},
    {"{\"minProperties\":1}", "{}", "expected at least 1 properties."},
    {"{\"maxProperties\":0}", "{\"a\":1}", "expected at most 0 properties."},
    {"{\"prefixItems\":[{\"type\":\"string\"}],\"items\":{\"type\":\"integer\"}}", "[\"a\",1]",
	NULL},
    {"{\"prefixItems\":[{\"type\":\"string\"}],\"items\":false}", "[\"a\",1]",
	"[1]: nothing is allowed here."},
    {"{\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}", "[\"a\",1]",
	"[1]: nothing is allowed here."},
    {"{\"contains\":{\"const\":2}}", "[1,2]", NULL},
    {"{\"contains\":{\"const\":3}}", "[1,2]", "expected an item that it lacks."},
    {"{\"minItems\":2}", "[1]", "expected at least 2 items."},
    {"{\"maxItems\":0}", "[1]", "expected at most 0 items."},
    {"{\"uniqueItems\":true}", "[1,2,1]", "item 2 repeats item 0."},
    {"{\"minLength\":2}", "\"\xc3\xa4\"", "expected at least 2 characters."},
    {"{\"maxLength\":1}", "\"\xc3\xa4\"", NULL},
    {"{\"minimum\":1}", "1", NULL},
    {"{\"minimum\":1}", "0.5", "expected a number from 1."},
    {"{\"minimum\":1,\"exclusiveMinimum\":true}", "1", "expected a number above 1."},
    {"{\"exclusiveMinimum\":1}", "1", "expected a number above 1."},
    {"{\"maximum\":1}", "2", "expected a number up to 1."},
    {"{\"exclusiveMaximum\":1}", "1", "expected a number below 1."},
    {"{\"multipleOf\":0.1}", "0.3", NULL},
    {"{\"multipleOf\":2}", "3", "expected a multiple of 2."},
    {"{\"allOf\":[{\"type\":\"string\"},{\"minLength\":2}]}", "\"a\"",
	"expected at least 2 characters."},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "null", NULL},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "1",
	"it matches none of the forms that are allowed."},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"minLength\":1}]}", "\"a\"",
	"it matches more than one of the forms, of which it must be one."},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "\"a\"", NULL},
    {"{\"not\":{\"type\":\"string\"}}", "\"a\"", "it is of a form that is not allowed."},
    {"{\"if\":{\"type\":\"string\"},\"then\":{\"minLength\":1},\"else\":{\"minimum\":1}}", "0",
	"expected a number from 1."},
    {"{\"$ref\":\"#/$defs/a~1b\",\"$defs\":{\"a/b\":{\"type\":\"string\"}}}", "1",
	"expected a string."},
    {"{\"$ref\":\"https://example.org/x\"}", "1", NULL},
    {"{\"$ref\":\"#/nowhere\"}", "1", NULL},
    {"{\"pattern\":\"^a\",\"format\":\"date\"}", "\"b\"", NULL},
    {"{\"type\":7,\"required\":{},\"minimum\":\"x\",\"items\":3}", "[1]", NULL},
};

static void
test_keywords(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(trials); i++) {
		json_t *schema = json_loads(trials[i].schema, JSON_DECODE_ANY, NULL);
		json_t *value = json_loads(trials[i].value, JSON_DECODE_ANY, NULL);
		struct buf why = BUF_INIT;

		assert_true(schema != NULL && value != NULL);
		bool does = schema_matches(schema, value, &why);
		if (does != (trials[i].why == NULL) ||
		    (!does && strcmp(why.data, trials[i].why) != 0))
			fail_msg("%s of %s: %s", trials[i].value, trials[i].schema,
			    does ? "matches" : why.data);
		buf_fini(&why);
		json_decref(schema);
		json_decref(value);
	}
}

/* What refers to itself ends, and what grows without bounds does so too. */
static void
test_bounds(void **state)
{
	static const char *const schemas[] = {
	    "{\"$ref\":\"#\"}",
	    "{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}",
	    "{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"type\":\"null\"}]}",
	    "{\"not\":{\"$ref\":\"#\"}}",
	};

	for (size_t i = 0; i < ARRAY_LEN(schemas); i++) {
		json_t *schema = json_loads(schemas[i], 0, NULL), *value = json_integer(1);
		struct buf why = BUF_INIT;

		schema_matches(schema, value, &why);
		buf_fini(&why);
		json_decref(schema);
		json_decref(value);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_keywords),
	    cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
