/* A number goes round all ranks a hundred times, one more at each of them. Each says where it is. */
#include <stdio.h>
#include <unistd.h>
#include "openmpi.h"

int main(int count, char **words) {
    int rank, size, number = 0;
    char host[256];
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    gethostname(host, sizeof host);
    for (int round = 0; round < 100; round++) {
        if (rank > 0)
            MPI_Recv(&number, 1, MPI_INT, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        number++;
        MPI_Send(&number, 1, MPI_INT, (rank + 1) % size, 0, MPI_COMM_WORLD);
        if (rank == 0)
            MPI_Recv(&number, 1, MPI_INT, size - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    printf("rank %d of %d on %s: %d\n", rank, size, host, number);
    MPI_Finalize();
    return 0;
}
