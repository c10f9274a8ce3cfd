/* What nvml.c is made of: NVML's structs, and answers taken from the environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7,
       INSUFFICIENT_POWER = 8, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
enum { NVML_FI_RECOVERY_ACTION = 230, NVML_FI_NVLINK_RCV_ERRORS = 208,
       NVML_FI_MEMORY_TEMP = 82 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned version; int celsius; } margin_t;
typedef struct {
  char legacy[16];
  unsigned domain, bus, device, id, subsystem;
  char bus_id[32];
} pci_t;
typedef struct {
  unsigned id, scope;
  long long timestamp, latency;
  unsigned type;
  int code;
  unsigned long long value;
} field_t;
typedef struct {
  unsigned version;
  unsigned char uuid[16];
  int status;
  unsigned clique, state, mask;
  unsigned char summary; /* since version 3 */
} fabric_t;
typedef struct { unsigned version; unsigned long long counts[11]; unsigned exceeded; } sram_t;

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static const char *words(const char *name, const char *otherwise) {
  const char *text = getenv(name);
  return text ? text : otherwise;
}

static int listed(const char *name, const char *wanted) {
  char text[512], word[80];
  snprintf(text, sizeof text, ",%s,", words(name, ""));
  snprintf(word, sizeof word, ",%s,", wanted);
  return strstr(text, word) != NULL;
}

static int index_listed(const char *name, int index) {
  char word[16];
  snprintf(word, sizeof word, "%d", index);
  return listed(name, word);
}

/* The number that a variable has for a GPU: `5` for all of them, `2:5` for GPU 2. */
static long of_gpu(const char *name, int index, long otherwise) {
  const char *text = getenv(name);
  long found = otherwise;
  while (text && *text) {
    char *end;
    long value = strtol(text, &end, 0);
    if (*end == ':') {
      long mine = strtol(end + 1, &end, 0);
      if (value == index) found = mine;
    } else {
      found = value;
    }
    text = *end ? end + 1 : end;
  }
  return found;
}

static int enter(const char *function) {
  const char *log = getenv("FAKE_LOG");
  FILE *file = log ? fopen(log, "a") : NULL;
  if (file) {
    fprintf(file, "%s\n", function);
    fclose(file);
  }
  if (listed("FAKE_HANG_AT", function)) pause();
  if (listed("FAKE_CRASH_AT", function)) abort();
  if (listed("FAKE_NOT_SUPPORTED", function)) return NOT_SUPPORTED;
  return listed("FAKE_NO_PERMISSION", function) ? NO_PERMISSION : 0;
}

static int index_of(void *handle) { return (int)(size_t)handle - 1; }

static int enter_gpu(const char *function, void *handle) {
  int code = enter(function);
  if (!code && index_listed("FAKE_LOST_LATER", index_of(handle))) return GPU_IS_LOST;
  return code;
}

#define ENTER do { int code = enter(__func__); if (code) return code; } while (0)
#define ENTER_GPU int index = index_of(handle), code = enter_gpu(__func__, handle); \
  if (code) return code

/* A call that gives one number of a GPU. */
#define NUMBER(function, variable, otherwise) \
  int function(void *handle, unsigned *found) { \
    ENTER_GPU; \
    *found = (unsigned)of_gpu(variable, index, otherwise); \
    return 0; \
  }
