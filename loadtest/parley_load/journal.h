/*
 * journal - what happened, line by line, for a test that compares it with what
 * others have written down: words divided by blanks, the time first, in
 * milliseconds since 1970.
 */
#ifndef LOADTEST_PARLEY_LOAD_JOURNAL_H
#define LOADTEST_PARLEY_LOAD_JOURNAL_H

#include <stdint.h>

/* Of this process: FILE.process. NULL: nothing is written. Ends the program when it cannot be. */
void journal_open(const char *file, uint32_t process);

void journal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
