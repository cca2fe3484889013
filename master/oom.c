/*
 * oom - whom the kernel takes when memory runs out.
 */
#include "master/oom.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ADJ_MORE = 100, ADJ_MAX = 1000, ADJ_TEXT_MAX = 16 };

void
oom_before_master(void)
{
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	char text[ADJ_TEXT_MAX] = "";

	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0) {
		long adj = strtol(text, NULL, 10) + ADJ_MORE;
		int len = snprintf(text, sizeof(text), "%ld", adj < ADJ_MAX ? adj : (long)ADJ_MAX);

		(void)!pwrite(fd, text, (size_t)len, 0);
	}
	close(fd);
}
