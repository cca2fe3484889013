/*
 * drop - initgroups, setresgid, setresuid, and the proof that there is no way back.
 */
#include "master/drop.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "master/run_dir.h"

struct identity {
	const char *user; /* for initgroups */
	uid_t uid;
	gid_t gid;
};

static bool
look_up(const struct conf *conf, struct identity *ret)
{
	const struct passwd *pw = getpwnam(conf->user);
	const struct group *gr = conf->group[0] != '\0' ? getgrnam(conf->group) : NULL;

	if (pw == NULL) {
		log_error("user unknown user=%s", conf->user);
		return false;
	}
	if (conf->group[0] != '\0' && gr == NULL) {
		log_error("group unknown group=%s", conf->group);
		return false;
	}
	*ret = (struct identity){conf->user, pw->pw_uid, gr != NULL ? gr->gr_gid : pw->pw_gid};
	return true;
}

static bool
give(const char *path, const struct identity *id)
{
	if (chown(path, id->uid, id->gid) == 0 || errno == ENOENT)
		return true;
	log_error("chown failed file=%s error=\"%s\"", path, strerror(errno));
	return false;
}

static bool
give_files(const struct conf *conf, const struct identity *id)
{
	static const char *const names[] = {"lock", "addresses"};
	bool is_given = give(conf->run_dir, id);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path = run_dir_path(conf, names[i]);

		is_given = give(path, id) && is_given;
		free(path);
	}
	if (conf->log.file[0] != '\0')
		is_given = give(conf->log.file, id) && is_given;
	return is_given;
}

static bool
become(const struct identity *id)
{
	if (initgroups(id->user, id->gid) != 0)
		return false;
	if (setresgid(id->gid, id->gid, id->gid) != 0 || setresuid(id->uid, id->uid, id->uid) != 0)
		return false;
	/* Changing the uid made us undumpable: no core of an aborted worker otherwise. */
	prctl(PR_SET_DUMPABLE, 1);
	check(id->uid == 0 || setuid(0) != 0);
	return true;
}

bool
drop_privileges(const struct conf *conf)
{
	struct identity id;

	if (conf->user[0] == '\0') /* without it there is no group either: the config was checked */
		return true;
	if (!look_up(conf, &id))
		return false;
	if (id.uid == getuid() && id.gid == getgid())
		return true;
	if (geteuid() != 0) {
		log_error("user not changed user=%s group=%s error=\"only root can\"", conf->user,
		    conf->group);
		return false;
	}
	if (!give_files(conf, &id))
		return false;
	if (!become(&id)) {
		log_error("user not changed user=%s error=\"%s\"", conf->user, strerror(errno));
		return false;
	}
	log_info("privileges dropped uid=%u gid=%u", id.uid, id.gid);
	return true;
}
