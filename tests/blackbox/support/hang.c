/* A file system that hangs. Loaded before the C library, these are the calls with which Rust and inotify reach a file.
   Calls that reach into $HANG_DIRECTORY wait for as long as $HANG_DIRECTORY.hangs exists, and are noted in
   $HANG_DIRECTORY.calls first. Each does the system call itself, so that no call of this file comes back here. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int hangs(const char *directory)
{
    char flag[PATH_MAX];
    snprintf(flag, sizeof flag, "%s.hangs", directory);
    return syscall(SYS_faccessat, AT_FDCWD, flag, F_OK, 0) == 0;
}

static void note(const char *directory, const char *call, const char *path)
{
    char name[PATH_MAX], line[PATH_MAX + 64];
    snprintf(name, sizeof name, "%s.calls", directory);
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int calls = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (calls >= 0) {
        syscall(SYS_write, calls, line, length);
        syscall(SYS_close, calls);
    }
}

static void wait_for(const char *call, const char *path)
{
    const char *directory = getenv("HANG_DIRECTORY");
    size_t length = directory ? strlen(directory) : 0;
    if (!length || !path || strncmp(path, directory, length) || (path[length] && path[length] != '/'))
        return;
    if (!hangs(directory))
        return;
    note(directory, call, path);
    struct timespec pause = {.tv_nsec = 10000000};
    while (hangs(directory))
        syscall(SYS_nanosleep, &pause, NULL);
}

static void wait_for_open(const char *call, int descriptor)
{
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, name, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        wait_for(call, path);
    }
}

#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, int);                                                                                      \
        va_end(more);                                                                                                  \
    }

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    wait_for("open", path);
    return syscall(SYS_openat, directory, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(directory, path, flags | O_LARGEFILE, mode);
}

ssize_t read(int descriptor, void *octets, size_t count)
{
    wait_for_open("read", descriptor);
    return syscall(SYS_read, descriptor, octets, count);
}

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found)
{
    if (path && *path)
        wait_for("stat", path);
    else
        wait_for_open("stat", directory);
    return syscall(SYS_statx, directory, path, flags, mask, found);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    wait_for("readlink", path);
    return syscall(SYS_readlinkat, AT_FDCWD, path, target, size);
}

char *realpath(const char *path, char *resolved)
{
    wait_for("realpath", path);
    char name[64], found[PATH_MAX];
    int file = syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC, 0);
    if (file < 0)
        return NULL;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, name, found, sizeof found - 1);
    syscall(SYS_close, file);
    if (length < 0)
        return NULL;
    found[length] = 0;
    return resolved ? strcpy(resolved, found) : strdup(found);
}

int inotify_add_watch(int watcher, const char *path, unsigned mask)
{
    wait_for("watch", path);
    return syscall(SYS_inotify_add_watch, watcher, path, mask);
}
