/* conf_undef - ends a use of conf.tbl: its macros are gone. Included many times, on purpose. */
#undef SECTION
#undef END_SECTION
#undef LIST_OF
#undef END_LIST
#undef BOOL
#undef INT
#undef AUTO
#undef FLOAT
#undef DURATION
#undef SIZE
#undef STRING
#undef ENUM
#undef SECRET
#undef URL
#undef DSN
#undef STRINGS
#undef MAP
