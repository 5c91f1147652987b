/*
 * Preloaded into a program, it gives the program a time of day of its own: the kernel's plus what the file named by
 * CLOCK_FILE holds, nanoseconds as a long. Who sets that time changes the file; its rate can't be changed.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static volatile long *shift;
static struct timex kept = {.tick = 10000, .tolerance = 32768000};

__attribute__((constructor)) static void find(void)
{
    int file = open(getenv("CLOCK_FILE"), O_RDWR);
    shift = mmap(0, sizeof *shift, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
}

static long real(void)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_REALTIME)
        return syscall(SYS_clock_gettime, clock, now);
    long at = real() + *shift;
    now->tv_sec = at / 1000000000;
    now->tv_nsec = at % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    long at = real() + *shift;
    now->tv_sec = at / 1000000000;
    now->tv_usec = at % 1000000000 / 1000;
    return 0;
}

time_t time(time_t *now)
{
    time_t at = (real() + *shift) / 1000000000;
    if (now)
        *now = at;
    return at;
}

int clock_settime(clockid_t clock, const struct timespec *now)
{
    *shift = now->tv_sec * 1000000000 + now->tv_nsec - real();
    return 0;
}

int settimeofday(const struct timeval *now, const struct timezone *zone)
{
    if (now)
        *shift = now->tv_sec * 1000000000 + now->tv_usec * 1000 - real();
    return 0;
}

int adjtimex(struct timex *asked)
{
    if (asked->modes & ADJ_SETOFFSET)
        *shift += asked->time.tv_sec * 1000000000 + asked->time.tv_usec * (asked->modes & ADJ_NANO ? 1 : 1000);
    if (asked->modes & ADJ_FREQUENCY)
        kept.freq = asked->freq;
    if (asked->modes & ADJ_TICK)
        kept.tick = asked->tick;
    if (asked->modes & ADJ_STATUS)
        kept.status = asked->status;
    unsigned modes = asked->modes;
    *asked = kept;
    asked->modes = modes;
    return TIME_OK;
}

int ntp_adjtime(struct timex *asked)
{
    return adjtimex(asked);
}

int clock_adjtime(clockid_t clock, struct timex *asked)
{
    return adjtimex(asked);
}
