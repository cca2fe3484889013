/*
 * unit - what every unit and replay test includes first: cmocka, which wants
 * these headers before it, and quiet about the state that most tests ignore.
 */
#ifndef T_UNIT_UNIT_H
#define T_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#endif
