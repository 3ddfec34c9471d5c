/* allreduce SECONDS: how long MPI_Allreduce takes of one double, as of a dot product, and of 256 KiB of them, for
   so many seconds each. Every rank says where it is. Then there is a line for each size: its bytes, and the shortest,
   the mean and the longest time of one call, over all calls and ranks, in microseconds. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "openmpi.h"

enum { MOST = 32768, BATCH = 20 };
static double mine[MOST], sums[MOST];

/* Seconds of a batch on the slowest rank: all of them have the same number, and so go on or end together. */
static double together(double own) {
    double most;
    MPI_Allreduce(&own, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return most;
}

static void measure(int count, double expected, double seconds, int ranks, int rank) {
    double shortest = 1e9, longest = 0, sum = 0, calls = 0, spent = 0;
    /* The first batch only warms up. */
    for (int batch = 0; batch < 2 || spent < seconds; batch++) {
        double begun = MPI_Wtime();
        for (int call = 0; call < BATCH; call++) {
            double before = MPI_Wtime();
            MPI_Allreduce(mine, sums, count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
            double took = MPI_Wtime() - before;
            if (sums[0] != expected || sums[count - 1] != expected) {
                fprintf(stderr, "a sum is %g and %g, and not %g\n", sums[0], sums[count - 1], expected);
                MPI_Abort(MPI_COMM_WORLD, 1);
            }
            if (batch == 0)
                continue;
            shortest = took < shortest ? took : shortest;
            longest = took > longest ? took : longest;
            sum += took;
            calls++;
        }
        double most = together(MPI_Wtime() - begun);
        spent += batch ? most : 0;
    }
    double least, whole;
    MPI_Allreduce(&shortest, &least, 1, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&sum, &whole, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    longest = together(longest);
    if (rank == 0)
        printf("%d bytes: %.3f %.3f %.3f us\n", count * (int)sizeof(double), least * 1e6,
               whole / calls / ranks * 1e6, longest * 1e6);
}

int main(int count, char **words) {
    int rank, ranks;
    char host[256];
    double seconds = count > 1 ? atof(words[1]) : 1;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    gethostname(host, sizeof host);
    printf("rank %d of %d on %s\n", rank, ranks, host);
    fflush(stdout);
    for (int place = 0; place < MOST; place++)
        mine[place] = rank + 1;
    measure(1, ranks * (ranks + 1) / 2.0, seconds, ranks, rank);
    measure(MOST, ranks * (ranks + 1) / 2.0, seconds, ranks, rank);
    MPI_Finalize();
    return 0;
}
