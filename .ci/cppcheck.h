/* What cppcheck does not see because it reads no system headers: macros that are statements. */
#define json_array_foreach(array, index, value)                                                    \
	for (index = 0; (value = json_array_get(array, index)) != NULL; index++)
#define json_object_foreach(object, key, value)                                                    \
	for (key = first(object); (value = json_object_get(object, key)) != NULL;)
#define json_object_foreach_safe(object, n, key, value)                                            \
	for (key = first(object), n = 0; (value = json_object_get(object, key)) != NULL;)
