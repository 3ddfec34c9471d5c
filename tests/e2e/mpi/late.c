/* A library for LD_PRELOAD, under Open MPI's fences of MPI_Init and MPI_Finalize. Each process says when it comes to
   one and when it may go on, on a clock that all of a machine have: fence NUMBER enters|leaves RANK NANOSECONDS. The
   one of rank $LATE comes to each of them half a second after it could, and goes on from it as late. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef void (*callback)(int status, void *data);
/* pmix.h, but for what is only passed on. */
typedef int (*fence)(const void *, size_t, const void *, size_t, callback, void *);
struct waiting {
    callback call;
    void *data;
    int number;
};

static void say(int number, const char *does) {
    struct timespec now;
    char line[128];
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* In one go: ranks share what they write to. */
    int length = snprintf(line, sizeof line, "fence %d %s %s %lld\n", number, does, getenv("PMIX_RANK"),
                          now.tv_sec * 1000000000LL + now.tv_nsec);
    if (write(STDOUT_FILENO, line, length) != length)
        abort();
}

static void be_late(void) {
    if (!strcmp(getenv("PMIX_RANK"), getenv("LATE")))
        usleep(500000);
}

static void leave(int status, void *data) {
    struct waiting *own = data;
    say(own->number, "leaves");
    be_late();
    own->call(status, own->data);
    free(own);
}

int PMIx_Fence_nb(const void *processes, size_t count, const void *info, size_t infos, callback call, void *data) {
    static int number;
    struct waiting *own = malloc(sizeof *own);
    *own = (struct waiting){call, data, ++number};
    be_late();
    say(own->number, "enters");
    return ((fence)dlsym(RTLD_NEXT, "PMIx_Fence_nb"))(processes, count, info, infos, leave, own);
}
