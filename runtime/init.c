/* The last step of a container under Apptainer: what the OCI specification says of the process.
 *
 * It is the first process of the container, root, in a root of Apptainer's that has the container's
 * below /rootfs, a fresh /proc, the container's /dev, and in /pod the files that record.go writes. It
 * enters the container's root, and becomes the container's program. An error goes to /pod/error,
 * which is closed without one when the program begins.
 *
 * init --compile FILE makes the kernel's filter of a seccomp profile (record.go, filter), on the node.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <linux/filter.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int errors = STDERR_FILENO;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	int number = errno;
	char text[8192];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text - 256, format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof text - 256)
		length = sizeof text - 257;
	length += snprintf(text + length, 256, ": %s", strerror(number));
	if (write(errors, text, length) < 0)
		_exit(125);
	/* As shells say it. */
	_exit(number == ENOENT ? 127 : 126);
}

static char *contents(const char *path, size_t *length)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat found;
	if (file < 0 || fstat(file, &found) < 0)
		fail("%s", path);
	char *text = malloc(found.st_size + 1);
	if (!text)
		fail("%s", path);
	for (*length = 0; (off_t)*length < found.st_size;) {
		ssize_t count = read(file, text + *length, found.st_size - *length);
		if (count < 0)
			fail("%s", path);
		if (count == 0)
			break;
		*length += count;
	}
	close(file);
	text[*length] = 0;
	return text;
}

/* The record: record.go, last. */
static struct {
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	int group_count;
	mode_t umask;
	bool has_umask, no_new_privileges, terminal, fakeroot;
	unsigned long long bounding, effective, permitted, inheritable, ambient;
	char *label, *cwd;
	char **masked, **readonly, **environment, **arguments;
	unsigned seccomp_flags;
	bool has_seccomp_flags;
} record = { .cwd = "/" };

static void append(char ***list, char *value)
{
	size_t count = 0;
	while (*list && (*list)[count])
		count++;
	/* In steps of a power of two, as a list of thousands is copied else at each of them. */
	if ((count & (count + 1)) == 0) {
		*list = realloc(*list, (2 * count + 3) * sizeof **list);
		if (!*list)
			fail("the container's specification");
	}
	(*list)[count] = value;
	(*list)[count + 1] = NULL;
}

static void read_record(void)
{
	size_t length;
	char *text = contents("/pod/process", &length);
	for (char *name = text; name < text + length;) {
		char *value = name + strlen(name) + 1;
		if (value >= text + length + 1)
			break;
		if (!strcmp(name, "uid"))
			record.uid = strtoul(value, NULL, 10);
		else if (!strcmp(name, "gid"))
			record.gid = strtoul(value, NULL, 10);
		else if (!strcmp(name, "group")) {
			record.groups = realloc(record.groups, (record.group_count + 1) * sizeof(gid_t));
			if (!record.groups)
				fail("the container's groups");
			record.groups[record.group_count++] = strtoul(value, NULL, 10);
		} else if (!strcmp(name, "umask")) {
			record.umask = strtoul(value, NULL, 10);
			record.has_umask = true;
		} else if (!strcmp(name, "bounding"))
			record.bounding = strtoull(value, NULL, 16);
		else if (!strcmp(name, "effective"))
			record.effective = strtoull(value, NULL, 16);
		else if (!strcmp(name, "permitted"))
			record.permitted = strtoull(value, NULL, 16);
		else if (!strcmp(name, "inheritable"))
			record.inheritable = strtoull(value, NULL, 16);
		else if (!strcmp(name, "ambient"))
			record.ambient = strtoull(value, NULL, 16);
		else if (!strcmp(name, "terminal"))
			record.terminal = true;
		else if (!strcmp(name, "no-new-privileges"))
			record.no_new_privileges = true;
		else if (!strcmp(name, "fakeroot"))
			record.fakeroot = true;
		else if (!strcmp(name, "label"))
			record.label = value;
		else if (!strcmp(name, "mask"))
			append(&record.masked, value);
		else if (!strcmp(name, "readonly"))
			append(&record.readonly, value);
		else if (!strcmp(name, "seccomp-flag")) {
			record.has_seccomp_flags = true;
			if (!strcmp(value, "SECCOMP_FILTER_FLAG_LOG"))
				record.seccomp_flags |= SECCOMP_FILTER_FLAG_LOG;
			else if (!strcmp(value, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"))
				record.seccomp_flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
			else if (strcmp(value, "SECCOMP_FILTER_FLAG_TSYNC"))
				/* That of a process with one thread. */
				errno = EINVAL, fail("linux.seccomp.flags: %s", value);
		} else if (!strcmp(name, "cwd"))
			record.cwd = value;
		else if (!strcmp(name, "env"))
			append(&record.environment, value);
		else if (!strcmp(name, "arg"))
			append(&record.arguments, value);
		else
			errno = EINVAL, fail("the record of the container's process: %s", name);
		name = value + strlen(value) + 1;
	}
}

/* Moves a mount of Apptainer's root into the container's, where it is no link: that could lead out. */
static void move(const char *name)
{
	char from[16], to[32], there[64];
	snprintf(from, sizeof from, "/%s", name);
	snprintf(to, sizeof to, "/rootfs/%s", name);
	int folder = open(to, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		fail("/%s of the image", name);
	snprintf(there, sizeof there, "/proc/self/fd/%d", folder);
	/* Not MS_MOVE: /proc itself is needed to say where to. */
	if (mount(from, there, NULL, MS_BIND | MS_REC, NULL) < 0)
		fail("mount /%s", name);
	close(folder);
}

static void enter_root(void)
{
	if (mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		fail("mount /proc");
	move("proc");
	move("dev");
	/* pivot_root(2), "pivot_root(".", ".")": no folder for the old root is needed. */
	if (chdir("/rootfs") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		fail("enter the container's root");
}

static void mask(const char *path)
{
	struct stat found;
	if (stat(path, &found) < 0)
		return;
	int failed = S_ISDIR(found.st_mode) ? mount("tmpfs", path, "tmpfs", MS_RDONLY, NULL)
					    : mount("/dev/null", path, NULL, MS_BIND, NULL);
	if (failed)
		fail("mask %s", path);
}

static void make_readonly(const char *path)
{
	if (access(path, F_OK) < 0)
		return;
	unsigned long flags = MS_BIND | MS_REC;
	if (mount(path, path, NULL, flags, NULL) < 0 ||
	    mount(NULL, path, NULL, flags | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		fail("make %s read-only", path);
}

/* So that a program that is another user's may open /dev/stdout. As runc: fixStdioPermissions in
 * libcontainer/init_linux.go. */
static void own_streams(void)
{
	struct stat null, found;
	if (stat("/dev/null", &null) < 0)
		fail("/dev/null");
	for (int each = 0; each <= 2; each++) {
		if (fstat(each, &found) < 0 || found.st_uid == record.uid)
			continue;
		if (S_ISCHR(found.st_mode) && found.st_rdev == null.st_rdev)
			continue;
		if (fchown(each, record.uid, -1) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
			fail("give a stream to user %u", record.uid);
	}
}

static struct sock_fprog filter;

static void read_filter(void)
{
	size_t length;
	if (access("/pod/seccomp.bpf", F_OK) < 0)
		return;
	filter.filter = (struct sock_filter *)contents("/pod/seccomp.bpf", &length);
	filter.len = length / sizeof(struct sock_filter);
}

static void load_filter(void)
{
	/* Where nothing is said, as crun: libcrun_apply_seccomp in src/libcrun/seccomp.c. */
	unsigned flags = record.has_seccomp_flags ? record.seccomp_flags : SECCOMP_FILTER_FLAG_SPEC_ALLOW;
	if (filter.filter && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) < 0)
		fail("load the seccomp filter");
}

static void bound_capabilities(void)
{
	for (int each = 0; each < 64; each++)
		if (!(record.bounding >> each & 1) && prctl(PR_CAPBSET_DROP, each, 0, 0, 0) < 0 && errno != EINVAL)
			fail("drop capability %d", each);
}

static void set_capabilities(unsigned long long effective, unsigned long long permitted,
			     unsigned long long inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ effective, permitted, inheritable },
		{ effective >> 32, permitted >> 32, inheritable >> 32 },
	};
	if (syscall(SYS_capset, &header, data) < 0)
		fail("set capabilities");
}

static void put(pid_t process, const char *name, const char *text)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", process, name);
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, text, strlen(text)) < 0)
		fail("fakeroot: %s", path);
	close(file);
}

/* What maps the container's user to root, once this process has a user namespace: a child that is still
 * root of the node's. By itself it could once its files in /proc are its own, but then others of its user
 * could trace it, too, while it still has what leads to the node. */
static struct {
	pid_t child;
	int told[2];
} mapper;

static void start_mapper(void)
{
	pid_t process = getpid();
	char word, map[64];
	if (pipe2(mapper.told, O_CLOEXEC) < 0 || (mapper.child = fork()) < 0)
		fail("fakeroot");
	if (mapper.child)
		return;
	close(mapper.told[1]);
	if (read(mapper.told[0], &word, 1) != 1)
		_exit(1);
	/* user_namespaces(7): with setgroups(2), it could leave groups that keep it from files. */
	put(process, "setgroups", "deny");
	snprintf(map, sizeof map, "0 %u 1", record.gid);
	put(process, "gid_map", map);
	snprintf(map, sizeof map, "0 %u 1", record.uid);
	put(process, "uid_map", map);
	_exit(0);
}

/* As Apptainer's --fakeroot of a user who has no further ones: root of a namespace whose only user is the
 * container's own, with the capabilities that the container may have, over what is that user's. */
static void seem_root(void)
{
	int status;
	if (unshare(CLONE_NEWUSER) < 0)
		fail("fakeroot: a user namespace");
	if (write(mapper.told[1], "", 1) != 1 || waitpid(mapper.child, &status, 0) < 0)
		fail("fakeroot");
	/* It has said why. */
	if (status)
		_exit(126);
	/* All are back in a namespace of its own. */
	bound_capabilities();
	if (!record.no_new_privileges)
		load_filter();
	set_capabilities(record.bounding, record.bounding, 0);
}

/* Capabilities go in this order: those that may be had at all, as root; the others once it is the
 * container's user, which they are kept for. */
static void become_user(void)
{
	if (record.fakeroot)
		start_mapper();
	bound_capabilities();
	/* The filter may forbid namespaces. */
	if (!record.no_new_privileges && !record.fakeroot)
		load_filter();
	if (setgroups(record.group_count, record.groups) < 0)
		fail("set groups");
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		fail("keep capabilities");
	if (setresgid(record.gid, record.gid, record.gid) < 0)
		fail("become group %u", record.gid);
	if (setresuid(record.uid, record.uid, record.uid) < 0)
		fail("become user %u", record.uid);
	set_capabilities(record.effective, record.permitted, record.inheritable);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		fail("clear ambient capabilities");
	for (int each = 0; each < 64; each++)
		if (record.ambient >> each & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, each, 0, 0) < 0)
			fail("raise ambient capability %d", each);
	if (record.fakeroot)
		seem_root();
	/* That of before is gone with the user: prctl(2), PR_SET_PDEATHSIG. Should Apptainer's process be
	 * killed, the container ends. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		fail("end with Apptainer");
}

/* As runc: libcontainer/init_linux.go, the user's entry in the image's own file, else /. */
static void set_home(void)
{
	const char *set = getenv("HOME"), *home = "/";
	if (set && *set)
		return;
	FILE *file = fopen("/etc/passwd", "re");
	struct passwd *entry = NULL;
	while (file && (entry = fgetpwent(file)))
		if (entry->pw_uid == (record.fakeroot ? 0 : record.uid)) {
			home = entry->pw_dir;
			break;
		}
	if (setenv("HOME", home, 1) < 0)
		fail("set HOME");
	if (file)
		fclose(file);
}

/* Not execvp(3), which gives files without a format to a shell. */
static void run(void)
{
	char **arguments = record.arguments, path[PATH_MAX];
	if (!arguments)
		errno = ENOENT, fail("exec: no program is named");
	if (strchr(arguments[0], '/')) {
		execve(arguments[0], arguments, environ);
		fail("exec: %s", arguments[0]);
	}
	int problem = ENOENT;
	const char *folders = getenv("PATH");
	for (const char *at = folders ? folders : ""; *at || at == folders;) {
		int length = strcspn(at, ":");
		snprintf(path, sizeof path, "%.*s/%s", length ? length : 1, length ? at : ".", arguments[0]);
		execve(path, arguments, environ);
		if (errno == EACCES)
			problem = EACCES;
		else if (errno != ENOENT && errno != ENOTDIR)
			fail("exec: %s", path);
		if (!at[length])
			break;
		at += length + 1;
	}
	errno = problem;
	fail("exec: %s: not found in PATH", arguments[0]);
}

static void start(void)
{
	errors = open("/pod/error", O_WRONLY | O_CLOEXEC | O_APPEND);
	if (errors < 0) {
		errors = STDERR_FILENO;
		fail("/pod/error");
	}
	read_record();
	read_filter();
	enter_root();
	for (char **each = record.masked; each && *each; each++)
		mask(*each);
	for (char **each = record.readonly; each && *each; each++)
		make_readonly(*each);
	int label = -1;
	if (record.label && (label = open("/proc/self/attr/exec", O_WRONLY | O_CLOEXEC)) < 0)
		fail("apparmorProfile or selinuxLabel");
	/* What Apptainer may have left open leads to the node. */
	if (syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC of linux/close_range.h */) < 0)
		for (int each = 3; each < 1024; each++)
			fcntl(each, F_SETFD, FD_CLOEXEC);
	/* The session is Apptainer's so far, and so is the terminal: it is taken away from it (1). */
	if (setsid() < 0 || (record.terminal && ioctl(STDIN_FILENO, TIOCSCTTY, 1) < 0))
		fail("begin a session");
	umask(record.has_umask ? record.umask : 022);
	own_streams();
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Once as root, which may go where the user may not, as runc does. */
	bool there = chdir(record.cwd) == 0;
	become_user();
	if (chdir(record.cwd) < 0 && !there)
		fail("chdir to %s", record.cwd);
	environ = record.environment ? record.environment : (char *[]){ NULL };
	set_home();
	if (record.label && write(label, record.label, strlen(record.label)) < 0)
		fail("apparmorProfile or selinuxLabel: %s", record.label);
	if (record.no_new_privileges) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
			fail("no new privileges");
		load_filter();
	}
	run();
}

static const struct {
	const char *name;
	uint32_t value;
} actions[] = {
	{ "SCMP_ACT_ALLOW", SCMP_ACT_ALLOW },
	{ "SCMP_ACT_LOG", SCMP_ACT_LOG },
	{ "SCMP_ACT_TRAP", SCMP_ACT_TRAP },
	{ "SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD },
	{ "SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD },
	{ "SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS },
};
static const char *operators[] = {
	[SCMP_CMP_NE] = "SCMP_CMP_NE", [SCMP_CMP_LT] = "SCMP_CMP_LT", [SCMP_CMP_LE] = "SCMP_CMP_LE",
	[SCMP_CMP_EQ] = "SCMP_CMP_EQ", [SCMP_CMP_GE] = "SCMP_CMP_GE", [SCMP_CMP_GT] = "SCMP_CMP_GT",
	[SCMP_CMP_MASKED_EQ] = "SCMP_CMP_MASKED_EQ",
};

static void __attribute__((noreturn)) refuse(const char *what, const char *value)
{
	fprintf(stderr, "%s %s is not known", what, value ? value : "(none)");
	exit(1);
}

static uint32_t action(const char *name, const char *number)
{
	unsigned value = number ? strtoul(number, NULL, 10) : 0;
	if (name && !strcmp(name, "SCMP_ACT_ERRNO"))
		return SCMP_ACT_ERRNO(value);
	if (name && !strcmp(name, "SCMP_ACT_TRACE"))
		return SCMP_ACT_TRACE(value);
	for (size_t each = 0; each < sizeof actions / sizeof *actions; each++)
		if (name && !strcmp(name, actions[each].name))
			return actions[each].value;
	refuse("the action", name);
}

static enum scmp_compare operator(const char *name)
{
	for (size_t each = 1; each < sizeof operators / sizeof *operators; each++)
		if (name && !strcmp(name, operators[each]))
			return each;
	refuse("the operator", name);
}

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s", what, strerror(-result));
		exit(1);
	}
}

/* call NAME ACTION ERRNO [INDEX OPERATOR VALUE SECOND]…: after the first word */
static void add_call(scmp_filter_ctx context, uint32_t by_default)
{
	const char *name = strtok(NULL, " "), *act = strtok(NULL, " "), *index;
	uint32_t does = action(act, strtok(NULL, " "));
	struct scmp_arg_cmp conditions[6];
	unsigned count = 0, seen = 0;
	bool alternatives = false;
	while ((index = strtok(NULL, " "))) {
		unsigned argument = strtoul(index, NULL, 10);
		if (argument >= 6 || count >= 6)
			refuse("the argument", index);
		const char *compare = strtok(NULL, " "), *value = strtok(NULL, " "), *second = strtok(NULL, " ");
		alternatives |= seen >> argument & 1;
		seen |= 1U << argument;
		conditions[count++] = (struct scmp_arg_cmp){
			argument, operator(compare), value ? strtoull(value, NULL, 10) : 0,
			second ? strtoull(second, NULL, 10) : 0,
		};
	}
	int number = seccomp_syscall_resolve_name(name);
	/* As runc and crun do: what this libseccomp does not know, and what says what holds already. */
	if (number == __NR_SCMP_ERROR || does == by_default)
		return;
	if (!alternatives) {
		check(seccomp_rule_add_array(context, does, number, count, conditions), name);
		return;
	}
	/* libseccomp takes one condition for an argument: several are rules of their own. */
	for (unsigned each = 0; each < count; each++)
		check(seccomp_rule_add_array(context, does, number, 1, conditions + each), name);
}

static void compile(const char *path)
{
	scmp_filter_ctx context = NULL;
	uint32_t by_default = 0;
	char *line = NULL;
	size_t size = 0;
	while (getline(&line, &size, stdin) > 0) {
		line[strcspn(line, "\n")] = 0;
		const char *word = strtok(line, " ");
		if (word && !strcmp(word, "default") && !context) {
			const char *name = strtok(NULL, " ");
			by_default = action(name, strtok(NULL, " "));
			context = seccomp_init(by_default);
		} else if (word && !strcmp(word, "architecture") && context) {
			char *name = strtok(NULL, " "), lower[32] = "";
			if (name && !strncmp(name, "SCMP_ARCH_", 10))
				name += 10;
			for (size_t each = 0; name && name[each] && each < sizeof lower - 1; each++)
				lower[each] = name[each] >= 'A' && name[each] <= 'Z' ? name[each] | 32 : name[each];
			uint32_t token = seccomp_arch_resolve_name(lower);
			if (!token)
				refuse("the architecture", name);
			int added = seccomp_arch_add(context, token);
			check(added == -EEXIST ? 0 : added, lower);
		} else if (word && !strcmp(word, "call") && context)
			add_call(context, by_default);
		else
			refuse("the line", word);
	}
	if (!context)
		refuse("the default action", NULL);
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0)
		fail("%s", path);
	check(seccomp_export_bpf(context, file), "export");
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "--compile"))
		compile(words[2]);
	else
		start();
	return 0;
}
