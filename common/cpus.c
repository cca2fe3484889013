/* cpus - affinity by the kernel's mask, quota from the cgroup's files. */
#include "common/cpus.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"

enum { TEXT_MAX = 16 * 1024 };

struct text {
	char bytes[TEXT_MAX];
	size_t len;
};

static struct str
line_of(struct str s)
{
	struct str rest = s;
	return str_trim(str_split(&rest, '\n'));
}

static unsigned
divide_up(struct str quota, struct str period)
{
	uint64_t q, p;

	if (!str_to_u64(quota, &q) || !str_to_u64(period, &p) || q == 0 || p == 0)
		return 0;
	uint64_t n = q / p + (q % p != 0);
	return n > UINT_MAX ? 0 : (unsigned)n;
}

unsigned
cpus_of_cgroup2(struct str cpu_max)
{
	struct str rest = line_of(cpu_max), quota = str_split(&rest, ' ');

	return divide_up(quota, rest); /* "max" is no number: no limit */
}

unsigned
cpus_of_cgroup1(struct str quota, struct str period)
{
	return divide_up(line_of(quota), line_of(period)); /* "-1" likewise */
}

/* Lines are `id:controllers:path`. */
static struct str
cgroup_path(struct str text, bool (*is_it)(struct str controllers))
{
	while (text.len > 0) {
		struct str path = str_split(&text, '\n');

		str_split(&path, ':');
		struct str controllers = str_split(&path, ':');
		if (path.p != NULL && path.len > 0 && *path.p == '/' && is_it(controllers))
			return path;
	}
	return STR_NONE;
}

static bool
is_unified(struct str controllers)
{
	return controllers.len == 0;
}

static bool
has_cpu(struct str controllers)
{
	while (controllers.len > 0) {
		if (str_eq(str_split(&controllers, ','), STR("cpu")))
			return true;
	}
	return false;
}

struct str
cpus_cgroup2_path(struct str text)
{
	return cgroup_path(text, is_unified);
}

struct str
cpus_cgroup1_path(struct str text)
{
	return cgroup_path(text, has_cpu);
}

static bool
read_text(struct text *ret, const char *root, const char *dir, struct str path, const char *file)
{
	char name[PATH_MAX];
	int n = snprintf(name, sizeof(name), "%s%s%.*s%s", root, dir, (int)path.len, path.p, file);

	if (n < 0 || (size_t)n >= sizeof(name))
		return false;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, ret->bytes, sizeof(ret->bytes));
	close(fd);
	if (got < 0)
		return false;
	ret->len = (size_t)got;
	return true;
}

static unsigned
quota_at(const char *root, bool is_v2, struct str path)
{
	struct text a, b;
	const char *v1 = "/sys/fs/cgroup/cpu";

	if (is_v2) {
		if (!read_text(&a, root, "/sys/fs/cgroup", path, "/cpu.max"))
			return 0;
		return cpus_of_cgroup2(str_sub(a.bytes, a.len));
	}
	if (!read_text(&a, root, v1, path, "/cpu.cfs_quota_us") ||
	    !read_text(&b, root, v1, path, "/cpu.cfs_period_us"))
		return 0;
	return cpus_of_cgroup1(str_sub(a.bytes, a.len), str_sub(b.bytes, b.len));
}

/* Every ancestor may be tighter. In a container the path may be the host's: the root is ours then.
 */
static unsigned
tightest(const char *root, bool is_v2, struct str path)
{
	unsigned least = 0;

	if (path.p == NULL)
		return 0;
	for (;;) {
		while (path.len > 0 && path.p[path.len - 1] == '/')
			path.len--;
		unsigned n = quota_at(root, is_v2, path);
		if (n > 0 && (least == 0 || n < least))
			least = n;
		if (path.len == 0)
			return least;
		while (path.len > 0 && path.p[path.len - 1] != '/')
			path.len--;
	}
}

unsigned
cpus_of_quota(const char *root)
{
	struct text t;

	if (!read_text(&t, root, "/proc/self/cgroup", STR_NONE, ""))
		return 0;
	struct str text = str_sub(t.bytes, t.len);
	unsigned v1 = tightest(root, false, cpus_cgroup1_path(text));
	unsigned v2 = tightest(root, true, cpus_cgroup2_path(text));
	return v1 == 0 || (v2 != 0 && v2 < v1) ? v2 : v1;
}

static unsigned
affinity(void)
{
	/* Machines may have more CPUs than a cpu_set_t holds. */
	for (int room = 1024; room <= 1024 * 1024; room *= 4) {
		cpu_set_t *set = CPU_ALLOC(room);
		size_t size = CPU_ALLOC_SIZE(room);

		check(set != NULL);
		int rc = sched_getaffinity(0, size, set);
		int n = rc == 0 ? CPU_COUNT_S(size, set) : 0;
		CPU_FREE(set);
		if (rc == 0)
			return n > 0 ? (unsigned)n : 1;
	}
	return 1;
}

unsigned
cpus_available(void)
{
	unsigned n = affinity(), quota = cpus_of_quota("");

	return quota > 0 && quota < n ? quota : n;
}
