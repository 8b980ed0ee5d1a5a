/* A clock of the day that is set. Loaded before the C library, clock_gettime adds the seconds in $CLOCK_OFFSET_FILE to
   CLOCK_REALTIME; other clocks stay, as they do when a real clock is set. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("CLOCK_OFFSET_FILE");
    if (result || clock != CLOCK_REALTIME || !path)
        return result;
    char text[32] = {0};
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) {
        if (syscall(SYS_read, file, text, sizeof text - 1) > 0)
            time->tv_sec += atoll(text);
        syscall(SYS_close, file);
    }
    return 0;
}
