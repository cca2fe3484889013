/*
 * help - what `parleyd --help` prints.
 */
#ifndef MASTER_HELP_H
#define MASTER_HELP_H

#include <stdio.h>

void help_print(FILE *);
void help_print_usage(FILE *); /* after a mistake: one line, and where to read more */

#endif
