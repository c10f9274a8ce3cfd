/* A stand-in for libnvidia-ml.so.1, so that pynvml's own ctypes are exercised without a GPU.
 *
 *   gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml.c
 *
 * FAKE_GPUS=4      how many there are
 * FAKE_BUSY=1,3    these have a process on them
 * FAKE_LOST=2      this one has fallen off the bus
 * FAKE_HANG=1      the driver never answers
 * FAKE_INIT=9      nvmlInit fails with this code (9: no driver)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;

static int number(const char *name) {
  const char *text = getenv(name);
  return text ? atoi(text) : 0;
}

static int listed(const char *name, int index) {
  char text[64] = ",", wanted[8];
  const char *list = getenv(name);
  if (!list) return 0;
  snprintf(text, sizeof text, ",%s,", list);
  snprintf(wanted, sizeof wanted, ",%d,", index);
  return strstr(text, wanted) != NULL;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (number("FAKE_HANG")) pause();
  return number("FAKE_INIT");
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "GPU is lost"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("FAKE_GPUS"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  if (listed("FAKE_LOST", (int)index)) return 15; /* NVML_ERROR_GPU_IS_LOST */
  *handle = (void *)(size_t)(index + 1);
  return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  (void)handle;
  snprintf(name, length, "NVIDIA Fake 80GB");
  return 0;
}
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
  snprintf(uuid, length, "GPU-%08zx-fake", (size_t)handle - 1);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  memory->total = 80ull << 30;
  memory->used = listed("FAKE_BUSY", (int)(size_t)handle - 1) ? 40ull << 30 : 0;
  memory->free = memory->total - memory->used;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  unsigned busy = (unsigned)listed("FAKE_BUSY", (int)(size_t)handle - 1);
  if (*count < busy) { *count = busy; return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */ }
  *count = busy;
  if (busy) found[0] = (process_t){.pid = 4242, .used = 40ull << 30};
  return 0;
}
