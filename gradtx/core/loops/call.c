#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define ALONE 16384 /* the most elements that are no work for two threads */
#if IN_BLOCKS
#define CHUNK 128 /* the blocks that a thread takes at once */
#else
#define CHUNK 16384 /* the elements that a thread takes at once */
#endif

typedef uint16_t bfloat16_t;

static inline uint32_t bits_of_32(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline uint64_t bits_of_64(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
static inline float of_bits_32(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
static inline double of_bits_64(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }
static inline uint16_t bits_of_float16(float x) { _Float16 h = (_Float16)x; uint16_t u; memcpy(&u, &h, 2); return u; }
static inline float float16_of_bits(uint16_t u) { _Float16 h; memcpy(&h, &u, 2); return (float)h; }

static inline float widened(bfloat16_t h) { return of_bits_32((uint32_t)h << 16); }
static inline bfloat16_t narrowed(float x) { /* to the nearest, ties to even */
  uint32_t u = bits_of_32(x);
  uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (bfloat16_t)(x != x ? (u >> 16) | 0x40 : rounded);
}

/* NaN if one is; of two zeros max has the positive one and min the negative one. */
#define EXTREME(name, real, bits, sign, join)                                  \
  static inline real name##_##bits(real a, real b) {                           \
    real same = of_bits_##bits(bits_of_##bits(a) join bits_of_##bits(b));      \
    real other = a == b ? same : b;                                            \
    return (a sign b) | (a != a) ? a : other;                                  \
  }
EXTREME(max, float, 32, >, &)
EXTREME(min, float, 32, <, |)
EXTREME(max, double, 64, >, &)
EXTREME(min, double, 64, <, |)

/* Whole numbers of floats: what is too large is the largest, and NaN is 0. No branches, which keep a loop from
   working on several elements at once. */
#define WHOLE(name, kind, wide, low, high)                        \
  static inline kind name##_of_32(float x) {                      \
    float y = x == x ? x : 0, z = y > (float)(low) ? y : (float)(low); \
    return (kind)(wide)(z < (float)(high) ? z : (float)(high));     \
  }                                                               \
  static inline kind name##_of_64(double x) {                     \
    double y = x == x ? x : 0, z = y > (double)(low) ? y : (double)(low); \
    return (kind)(wide)(z < (double)(high) ? z : (double)(high));   \
  }
/* The same where the largest is no float: what is past it is asked for. */
#define WIDE(name, kind, low, high, past)                                                 \
  static inline kind name##_of_32(float x) {                                              \
    return x != x ? 0 : x <= (float)(low) ? (low) : x >= (float)(past) ? (high) : (kind)x; \
  }                                                                                       \
  static inline kind name##_of_64(double x) {                                             \
    return x != x ? 0 : x <= (double)(low) ? (low) : x >= (double)(past) ? (high) : (kind)x; \
  }
WHOLE(int8, int8_t, int32_t, INT8_MIN, INT8_MAX)
WHOLE(int16, int16_t, int32_t, INT16_MIN, INT16_MAX)
WHOLE(uint8, uint8_t, int32_t, 0, UINT8_MAX)
WHOLE(uint16, uint16_t, int32_t, 0, UINT16_MAX)
WIDE(int32, int32_t, INT32_MIN, INT32_MAX, 2147483648.0)
WIDE(int64, int64_t, INT64_MIN, INT64_MAX, 9223372036854775808.0)
WIDE(uint32, uint32_t, 0, UINT32_MAX, 4294967296.0)
WIDE(uint64, uint64_t, 0, UINT64_MAX, 18446744073709551616.0)

typedef struct {
  int64_t rank, elements; /* elements: those of a block */
  int64_t sizes[MOST_AXES], counts[MOST_AXES], of_block[MOST_AXES];
} Shape;

/* Where the rows of a block begin, and how long they are. */
static inline int64_t rows_of(const Shape *shape, int64_t block, int64_t *rows, int64_t *width) {
  int64_t first = 0, stride = 1, count = 1, left = block;
  rows[0] = 0;
  for (int64_t axis = shape->rank - 1; axis >= 0; axis--) {
    int64_t size = shape->of_block[axis], at = left % shape->counts[axis];
    left /= shape->counts[axis];
    first += at * size * stride;
    if (axis == shape->rank - 1) {
      *width = size;
    } else { /* the rows so far, again for each place along this axis */
      for (int64_t k = 1; k < size; k++)
        for (int64_t r = 0; r < count; r++) rows[k * count + r] = rows[r] + k * stride;
      count *= size;
    }
    stride *= shape->sizes[axis];
  }
  for (int64_t r = 0; r < count; r++) rows[r] += first;
  return count;
}

/* The largest magnitude; NaN if there is one, whose bits are above those of infinity. */
#define LARGEST(real, bits)                                                           \
  static inline real largest_##bits(const real *x, int64_t n) {                       \
    int##bits##_t most = 0;                                                           \
    for (int64_t k = 0; k < n; k++) {                                                 \
      int##bits##_t u = (int##bits##_t)(bits_of_##bits(x[k]) & INT##bits##_MAX);       \
      most = u > most ? u : most;                                                     \
    }                                                                                 \
    return of_bits_##bits((uint##bits##_t)most);                                      \
  }
LARGEST(float, 32)
LARGEST(double, 64)

/* LOOP */

enum { EACH, ONE, BLOCK };
static const int64_t widths[TAKES + MAKES] = {WIDTHS}; /* the bytes of an element of each array */
static const int kinds[TAKES + MAKES] = {KINDS};       /* of what it has an element */

typedef struct {
  const number_t *numbers;
  void *shared[SHARED + 1];
  int64_t leaves, settings, chunks;
  _Atomic int64_t next, done;
  _Atomic int holders;
  /* units: what a chunk has some of, elements or blocks; first: the leaf's first chunk */
  struct { void *arrays[TAKES + MAKES]; int64_t elements, units, first; Shape shape; } leaf[];
} Job;

static void work(Job *job) {
  int64_t chunk;
  while ((chunk = atomic_fetch_add(&job->next, 1)) < job->chunks) {
    int64_t low = 0, high = job->leaves;
    while (high - low > 1) { /* the last leaf whose first chunk is not after it */
      int64_t middle = (low + high) / 2;
      if (job->leaf[middle].first <= chunk) low = middle; else high = middle;
    }
    int64_t n = job->leaf[low].units, each = (n + CHUNK - 1) / CHUNK;
    int64_t setting = (chunk - job->leaf[low].first) / each, part = (chunk - job->leaf[low].first) % each;
    void *arrays[TAKES + MAKES];
    for (int k = 0; k < TAKES + MAKES; k++) {
      int64_t size = kinds[k] == EACH ? job->leaf[low].elements : kinds[k] == ONE ? 1 : n;
      arrays[k] = (char *)job->leaf[low].arrays[k] + setting * size * widths[k];
    }
    int64_t start = part * CHUNK, stop = start + CHUNK < n ? start + CHUNK : n;
    loop(job->numbers + setting * NUMBERS, job->shared, arrays, &job->leaf[low].shape, start, stop);
    atomic_fetch_add(&job->done, 1);
  }
}

static void drop(Job *job) {
  if (atomic_fetch_sub(&job->holders, 1) == 1) free(job);
}

static void task(void *job) {
  work(job);
  drop(job);
}

static int64_t size_of(const XLA_FFI_Buffer *buffer) {
  int64_t size = 1;
  for (int64_t axis = 0; axis < buffer->rank; axis++) size *= buffer->dims[axis];
  return size;
}

#if IN_BLOCKS
/* How a leaf is cut into blocks: as its arrays of elements and of blocks say, behind the axes of settings. */
static int64_t cut(Shape *shape, XLA_FFI_Buffer **arrays, int64_t settings_rank) {
  const XLA_FFI_Buffer *of_each = NULL, *of_block = NULL;
  for (int k = 0; k < TAKES; k++) {
    if (kinds[k] == EACH) of_each = arrays[k];
    if (kinds[k] == BLOCK) of_block = arrays[k];
  }
  int64_t blocks = 1;
  shape->rank = of_each->rank - settings_rank;
  shape->elements = 1;
  for (int64_t axis = 0; axis < shape->rank; axis++) {
    shape->sizes[axis] = of_each->dims[settings_rank + axis];
    shape->counts[axis] = of_block->dims[settings_rank + axis];
    shape->of_block[axis] = shape->counts[axis] ? shape->sizes[axis] / shape->counts[axis] : 0;
    shape->elements *= shape->of_block[axis];
    blocks *= shape->counts[axis];
  }
  return blocks;
}
#endif

XLA_FFI_Error *handler(XLA_FFI_CallFrame *frame) {
  for (XLA_FFI_Extension_Base *e = frame->extension_start; e; e = e->next)
    if (e->type == XLA_FFI_Extension_Metadata) {
      XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)e)->metadata;
      metadata->api_version.major_version = XLA_FFI_API_MAJOR;
      metadata->api_version.minor_version = XLA_FFI_API_MINOR;
      metadata->traits = 0;
      return NULL;
    }
  if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return NULL;

  XLA_FFI_Buffer **given = (XLA_FFI_Buffer **)frame->args.args, **made = (XLA_FFI_Buffer **)frame->rets.rets;
  int64_t leaves = frame->rets.size / MAKES;
  Job *job = malloc(sizeof(Job) + leaves * sizeof(job->leaf[0]));
  if (!job) {
    XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL,
                                       "gradtx: no memory for the list of leaves", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
    return frame->api->XLA_FFI_Error_Create(&error);
  }
  job->numbers = given[0]->data;
  job->settings = size_of(given[0]) / NUMBERS;
  for (int k = 0; k < SHARED; k++) job->shared[k] = given[1 + k]->data;
  job->leaves = leaves;
  job->chunks = 0;
  int64_t elements = 0;
  for (int64_t i = 0; i < leaves; i++) {
    for (int k = 0; k < TAKES; k++) job->leaf[i].arrays[k] = given[1 + SHARED + i * TAKES + k]->data;
    for (int k = 0; k < MAKES; k++) job->leaf[i].arrays[TAKES + k] = made[i * MAKES + k]->data;
    int64_t n = job->settings ? size_of(given[1 + SHARED + i * TAKES]) / job->settings : 0;
    job->leaf[i].elements = job->leaf[i].units = n;
#if IN_BLOCKS
    job->leaf[i].units = cut(&job->leaf[i].shape, given + 1 + SHARED + i * TAKES, given[0]->rank - 1);
#endif
    job->leaf[i].first = job->chunks;
    job->chunks += job->settings * ((job->leaf[i].units + CHUNK - 1) / CHUNK);
    elements += job->settings * n;
  }
  atomic_init(&job->next, 0);
  atomic_init(&job->done, 0);
  atomic_init(&job->holders, 1);
  if (job->chunks > 1 && elements > ALONE) {
    int64_t threads = 1;
    XLA_FFI_ThreadPool_NumThreads_Args asked = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &threads};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&asked);
    if (error) { /* no pool: this thread does all */
      XLA_FFI_Error_Destroy_Args gone = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&gone);
      threads = 1;
    }
    if (threads > job->chunks) threads = job->chunks;
    for (int64_t t = 1; t < threads; t++) {
      atomic_fetch_add(&job->holders, 1);
      XLA_FFI_ThreadPool_Schedule_Args other = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, task, job};
      error = frame->api->XLA_FFI_ThreadPool_Schedule(&other);
      if (error) {
        XLA_FFI_Error_Destroy_Args gone = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
        frame->api->XLA_FFI_Error_Destroy(&gone);
        drop(job);
        break;
      }
    }
  }
  work(job);
  /* Another thread may never begin; what is waited for is only what one has taken. */
  while (atomic_load(&job->done) < job->chunks) sched_yield();
  drop(job);
  return NULL;
}
