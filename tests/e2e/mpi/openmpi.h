/* What these programs need of Open MPI's binary interface, which is one from 1.7 on: libmpi.so.40. With its real
   header all of Fortran would have to be installed. Sources: ompi/include/mpi.h.in and, of what
   MPI_COMM_WORLD, MPI_INT … are, OMPI_PREDEFINED_GLOBAL there. */
extern char ompi_mpi_comm_world[], ompi_mpi_int[], ompi_mpi_double[];
extern char ompi_mpi_op_sum[], ompi_mpi_op_min[], ompi_mpi_op_max[];
#define MPI_COMM_WORLD ((void *)ompi_mpi_comm_world)
#define MPI_INT ((void *)ompi_mpi_int)
#define MPI_DOUBLE ((void *)ompi_mpi_double)
#define MPI_SUM ((void *)ompi_mpi_op_sum)
#define MPI_MIN ((void *)ompi_mpi_op_min)
#define MPI_MAX ((void *)ompi_mpi_op_max)
#define MPI_STATUS_IGNORE ((void *)0)
int MPI_Init(int *, char ***);
int MPI_Finalize(void);
int MPI_Abort(void *, int);
int MPI_Comm_rank(void *, int *);
int MPI_Comm_size(void *, int *);
int MPI_Send(const void *, int, void *, int, int, void *);
int MPI_Recv(void *, int, void *, int, int, void *, void *);
int MPI_Allreduce(const void *, void *, int, void *, void *, void *);
double MPI_Wtime(void);
