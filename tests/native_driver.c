/* Calls a loop as XLA would, on buffers that are no longer than they must be, without XLA and without Python.

   It is called with threads that begin at once, with ones that begin when the call has ended and its buffers
   are gone, with a pool that refuses, and with none; all must give the same bits. */
#include "loop.c"

#include <pthread.h>
#include <stdio.h>

typedef struct { int64_t width, rank, dims[8], over; } Spec; /* over: which operand a result is written over */
#include "buffers.h" /* given[GIVEN], made[MADE] and, for each operand, whether its bytes are 0 or 1 */

enum { AT_ONCE, LATE, REFUSES, NONE, WAYS };
static int way, tasks, errors;
static struct { XLA_FFI_Task *task; void *data; pthread_t thread; } waiting[64];
struct XLA_FFI_Error { int code; };

static XLA_FFI_Error *fails(void) {
  errors++;
  return malloc(sizeof(struct XLA_FFI_Error));
}
static void *run(void *k) {
  waiting[(intptr_t)k].task(waiting[(intptr_t)k].data);
  return NULL;
}
static void destroy(XLA_FFI_Error_Destroy_Args *args) { errors--; free(args->error); }
static XLA_FFI_Error *threads(XLA_FFI_ThreadPool_NumThreads_Args *args) {
  if (way == NONE) return fails();
  *args->num_threads = 5;
  return NULL;
}
static XLA_FFI_Error *schedule(XLA_FFI_ThreadPool_Schedule_Args *args) {
  if (way == REFUSES && tasks == 1) return fails();
  waiting[tasks].task = args->task;
  waiting[tasks].data = args->data;
  if (way != LATE && pthread_create(&waiting[tasks].thread, NULL, run, (void *)(intptr_t)tasks)) abort();
  tasks++;
  return NULL;
}

static int64_t bytes(const Spec *spec) {
  int64_t n = spec->width;
  for (int64_t axis = 0; axis < spec->rank; axis++) n *= spec->dims[axis];
  return n;
}

/* FNV-1a, of what a call has made */
static uint64_t called(void) {
  XLA_FFI_Buffer operands[GIVEN] = {0}, results[MADE] = {0};
  void *args[GIVEN], *rets[MADE];
  uint64_t random = 88172645463325252ull, hash = 14695981039346656037ull;
  for (int k = 0; k < GIVEN; k++) {
    uint8_t *data = malloc(bytes(&given[k]));
    for (int64_t i = 0; i < bytes(&given[k]); i++) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      data[i] = is_bool[k] ? random & 1 : random >> 32;
    }
    operands[k] = (XLA_FFI_Buffer){.data = data, .rank = given[k].rank, .dims = given[k].dims};
    args[k] = &operands[k];
  }
  for (int k = 0; k < MADE; k++) {
    void *data = made[k].over < 0 ? malloc(bytes(&made[k])) : operands[made[k].over].data;
    results[k] = (XLA_FFI_Buffer){.data = data, .rank = made[k].rank, .dims = made[k].dims};
    rets[k] = &results[k];
  }
  XLA_FFI_Api api = {.XLA_FFI_Error_Destroy = destroy, .XLA_FFI_ThreadPool_NumThreads = threads,
                     .XLA_FFI_ThreadPool_Schedule = schedule};
  XLA_FFI_CallFrame frame = {.api = &api, .stage = XLA_FFI_ExecutionStage_EXECUTE};
  frame.args.size = GIVEN, frame.args.args = args, frame.rets.size = MADE, frame.rets.rets = rets;
  tasks = 0;
  if (handler(&frame) || errors) abort();
  for (int k = 0; k < MADE; k++) {
    for (int64_t i = 0; i < bytes(&made[k]); i++) hash = (hash ^ ((uint8_t *)results[k].data)[i]) * 1099511628211ull;
    if (made[k].over < 0) free(results[k].data);
  }
  for (int k = 0; k < GIVEN; k++) free(operands[k].data);
  for (int k = 0; k < tasks; k++)
    if (way == LATE) run((void *)(intptr_t)k);
    else pthread_join(waiting[k].thread, NULL);
  return hash;
}

int main(void) {
  uint64_t first = 0;
  int most = 0;
  for (way = 0; way < WAYS; way++) {
    uint64_t hash = called();
    if (way && hash != first) return printf("another result in way %d\n", way), 1;
    first = hash;
    most = tasks > most ? tasks : most;
  }
  printf("%d tasks\n", most);
  return 0;
}
