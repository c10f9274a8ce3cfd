/* A stand-in for libnvidia-ml.so.1, so that pynvml's own ctypes are exercised without a GPU.
 *
 *   gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml.c
 *
 * With -DOLD_DRIVER it lacks the symbols that drivers before 535 lack.
 *
 * FAKE_GPUS=4           how many there are
 * FAKE_LOST=2           this one has fallen off the bus
 * FAKE_REFUSED=2        this one is somebody else's: it gives no handle
 * FAKE_UNPOWERED=2      the cable of this one is not plugged in
 * FAKE_LOST_LATER=2     this one gives a handle, and then falls off the bus
 * FAKE_INIT=9           nvmlInit fails with this code (9: not loaded, 18: mismatch)
 * FAKE_HANG=1           the driver never answers
 * FAKE_HANG_AT=nvmlX    it never answers this call
 * FAKE_CRASH_AT=nvmlX   this call ends the process
 * FAKE_NOT_SUPPORTED=nvmlX,nvmlY   these return NVML_ERROR_NOT_SUPPORTED
 * FAKE_NO_PERMISSION=nvmlX         these return NVML_ERROR_NO_PERMISSION
 * FAKE_LOG=file         every call appends its name
 * FAKE_NAME, FAKE_DRIVER, FAKE_VBIOS, FAKE_BOARD: texts; the last is part of every UUID
 *
 * Numbers; `5` is for every GPU, `2:5` for GPU 2 alone, `2:5,3:1` for two of them:
 * FAKE_BUSY (1,3: these have a process; its number is FAKE_PID)   FAKE_USED_MIB
 * FAKE_MPS_CLIENT (number of a process that computes through MPS)  FAKE_DESKTOP (of one that draws)
 * FAKE_CAPABILITY (90)  FAKE_MEMORY_GIB  FAKE_TEMPERATURE  FAKE_POWER_LIMIT (W)
 * FAKE_MARGIN  FAKE_MEMORY_TEMPERATURE
 * FAKE_RECOVERY  FAKE_MIG  FAKE_COMPUTE_MODE  FAKE_PERSISTENCE  FAKE_ECC_MODE  FAKE_ECC_PENDING
 * FAKE_ECC_VOLATILE  FAKE_ECC_AGGREGATE  FAKE_SRAM  FAKE_REMAPPED  FAKE_REMAP_PENDING
 * FAKE_REMAP_FAILURE  FAKE_RETIRED  FAKE_RETIRED_PENDING  FAKE_CLOCKS  FAKE_PCIE_WIDTH
 * FAKE_PCIE_GENERATION  FAKE_BAR1_MIB  FAKE_FABRIC (state)  FAKE_FABRIC_STATUS
 * FAKE_FABRIC_CLIQUE  FAKE_FABRIC_MASK  FAKE_FABRIC_SUMMARY  FAKE_FABRIC_VERSION (of structs)
 * FAKE_FABRIC_UUID (every byte of it)  FAKE_PER_SOCKET (GPUs of one socket, for the topology)
 * FAKE_NVLINKS (each)  FAKE_NVLINK_DOWN (a link)  FAKE_NVLINK_ERRORS  FAKE_SWITCH (1: links
 * lead to switches)  FAKE_TOPOLOGY  FAKE_P2P  FAKE_P2P_NVLINK  FAKE_EXCLUDED
 * FAKE_CUDA (0: there is no libcuda)
 */
#include "nvml_fake.h"

/* --- the driver ---------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  ENTER;
  if (number("FAKE_HANG", 0)) pause();
  return number("FAKE_INIT", 0);
}
int nvmlShutdown(void) { return enter(__func__); }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "an error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  ENTER;
  snprintf(text, length, "%s", words("FAKE_DRIVER", "580.159.03"));
  return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  ENTER;
  *version = number("FAKE_CUDA", 13000);
  return *version ? 0 : LIBRARY_NOT_FOUND;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  ENTER;
  *count = (unsigned)number("FAKE_GPUS", 0);
  return 0;
}
int nvmlGetExcludedDeviceCount(unsigned *count) {
  ENTER;
  *count = (unsigned)number("FAKE_EXCLUDED", 0);
  return 0;
}

/* --- who a GPU is, and who is on it -------------------------------------------------- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  ENTER;
  if (index_listed("FAKE_LOST", (int)index)) return GPU_IS_LOST;
  if (index_listed("FAKE_REFUSED", (int)index)) return NO_PERMISSION;
  if (index_listed("FAKE_UNPOWERED", (int)index)) return INSUFFICIENT_POWER;
  *handle = (void *)(size_t)(index + 1);
  return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  ENTER_GPU;
  (void)index;
  snprintf(name, length, "%s", words("FAKE_NAME", "NVIDIA Fake 80GB"));
  return 0;
}
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
  ENTER_GPU;
  snprintf(uuid, length, "GPU-%08x-%s", index, words("FAKE_BOARD", "fake"));
  return 0;
}
static void pci_of(pci_t *pci, unsigned bus) {
  memset(pci, 0, sizeof *pci);
  pci->bus = bus;
  snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", bus);
  snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", bus);
}
static unsigned bus_of(int index) { return 0x1a + 0x11 * (unsigned)index; }
int nvmlDeviceGetPciInfo_v3(void *handle, pci_t *pci) {
  ENTER_GPU;
  pci_of(pci, bus_of(index));
  return 0;
}
int nvmlDeviceGetVbiosVersion(void *handle, char *text, unsigned length) {
  ENTER_GPU;
  (void)index;
  snprintf(text, length, "%s", words("FAKE_VBIOS", "96.00.99.00.01"));
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  ENTER_GPU;
  long capability = of_gpu("FAKE_CAPABILITY", index, 90);
  *major = (int)(capability / 10);
  *minor = (int)(capability % 10);
  return 0;
}
static unsigned long long used_by(int index) {
  if (index_listed("FAKE_BUSY", index)) return 40ull << 30;
  return (unsigned long long)of_gpu("FAKE_USED_MIB", index, 4) << 20;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  ENTER_GPU;
  memory->total = (unsigned long long)of_gpu("FAKE_MEMORY_GIB", index, 80) << 30;
  memory->used = used_by(index);
  memory->free = memory->total - memory->used;
  return 0;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *memory) {
  ENTER_GPU;
  if (memory->version != 0x02000028) return VERSION_MISMATCH;
  memory->total = (unsigned long long)of_gpu("FAKE_MEMORY_GIB", index, 80) << 30;
  memory->used = used_by(index);
  memory->reserved = 512ull << 20;
  memory->free = memory->total - memory->used - memory->reserved;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  ENTER_GPU;
  unsigned busy = (unsigned)index_listed("FAKE_BUSY", index);
  if (*count < busy) {
    *count = busy;
    return INSUFFICIENT_SIZE;
  }
  *count = busy;
  if (busy) found[0] = (process_t){.pid = (unsigned)number("FAKE_PID", 4242), .used = 40ull << 30};
  return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  ENTER_GPU;
  unsigned desktop = of_gpu("FAKE_DESKTOP", index, 0) != 0;
  if (*count < desktop) {
    *count = desktop;
    return INSUFFICIENT_SIZE;
  }
  *count = desktop;
  unsigned pid = (unsigned)of_gpu("FAKE_DESKTOP", index, 0);
  if (desktop) found[0] = (process_t){.pid = pid, .used = 650ull << 20};
  return 0;
}
/* A client of MPS; whoever computes by itself is listed here too, as by some drivers. */
int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  ENTER_GPU;
  unsigned client = (unsigned)of_gpu("FAKE_MPS_CLIENT", index, 0);
  unsigned there = client ? 1 + (unsigned)index_listed("FAKE_BUSY", index) : 0;
  if (*count < there) {
    *count = there;
    return INSUFFICIENT_SIZE;
  }
  *count = there;
  if (there) found[0] = (process_t){.pid = client, .used = 1ull << 30};
  if (there > 1) found[1] = (process_t){.pid = (unsigned)number("FAKE_PID", 4242), .used = 40ull << 30};
  return 0;
}
#endif

/* --- how it fares -------------------------------------------------------------------- */

NUMBER(nvmlDeviceGetComputeMode, "FAKE_COMPUTE_MODE", 0)
NUMBER(nvmlDeviceGetPersistenceMode, "FAKE_PERSISTENCE", 1)
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, "FAKE_RETIRED_PENDING", 0)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "FAKE_PCIE_WIDTH", 16)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "FAKE_PCIE_WIDTH_MAX", 16)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "FAKE_PCIE_GENERATION", 5)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "FAKE_PCIE_GENERATION_MAX", 5)

static int two(void *handle, const char *now, const char *later, long otherwise, unsigned *a,
               unsigned *b) {
  *a = (unsigned)of_gpu(now, index_of(handle), otherwise);
  *b = (unsigned)of_gpu(later, index_of(handle), *a);
  return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  ENTER_GPU;
  (void)index;
  return two(handle, "FAKE_MIG", "FAKE_MIG_PENDING", 0, current, pending);
}
int nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending) {
  ENTER_GPU;
  (void)index;
  return two(handle, "FAKE_ECC_MODE", "FAKE_ECC_PENDING", 1, current, pending);
}
int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, unsigned long long *count) {
  ENTER_GPU;
  if (kind != 1) return INVALID_ARGUMENT;
  const char *name = counter ? "FAKE_ECC_AGGREGATE" : "FAKE_ECC_VOLATILE";
  *count = (unsigned long long)of_gpu(name, index, 0);
  return 0;
}
int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failure) {
  ENTER_GPU;
  *corrected = 0;
  *uncorrected = (unsigned)of_gpu("FAKE_REMAPPED", index, 0);
  *pending = (unsigned)of_gpu("FAKE_REMAP_PENDING", index, 0);
  *failure = (unsigned)of_gpu("FAKE_REMAP_FAILURE", index, 0);
  return 0;
}
int nvmlDeviceGetRetiredPages(void *handle, int cause, unsigned *count, unsigned long long *pages) {
  ENTER_GPU;
  unsigned retired = cause == 1 ? (unsigned)of_gpu("FAKE_RETIRED", index, 0) : 0;
  if (*count < retired) {
    *count = retired;
    return INSUFFICIENT_SIZE;
  }
  *count = retired;
  for (unsigned page = 0; pages && page < retired; page++) pages[page] = page << 12;
  return 0;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
  ENTER_GPU;
  if (sensor != 0) return INVALID_ARGUMENT;
  *celsius = (unsigned)of_gpu("FAKE_TEMPERATURE", index, 34);
  return 0;
}
int nvmlDeviceGetTemperatureThreshold(void *handle, int threshold, unsigned *celsius) {
  ENTER_GPU;
  (void)index;
  *celsius = threshold == 1 ? 89 : threshold == 2 ? 95 : threshold == 3 ? 85 : 0;
  return *celsius ? 0 : INVALID_ARGUMENT;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetMarginTemperature(void *handle, margin_t *margin) {
  ENTER_GPU;
  if (margin->version != 0x1000008) return VERSION_MISMATCH;
  margin->celsius = (int)of_gpu("FAKE_MARGIN", index, 89 - of_gpu("FAKE_TEMPERATURE", index, 34));
  return 0;
}
#endif
static int clocks(void *handle, unsigned long long *reasons) {
  *reasons = (unsigned long long)of_gpu("FAKE_CLOCKS", index_of(handle), 1);
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
  ENTER_GPU;
  (void)index;
  return clocks(handle, reasons);
}
#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
  ENTER_GPU;
  (void)index;
  return clocks(handle, reasons);
}
int nvmlDeviceGetSramEccErrorStatus(void *handle, sram_t *status) {
  ENTER_GPU;
  if (status->version != 0x1000068) return VERSION_MISMATCH;
  status->exceeded = (unsigned)of_gpu("FAKE_SRAM", index, 0);
  return 0;
}
#endif
int nvmlDeviceGetUtilizationRates(void *handle, utilization_t *rates) {
  ENTER_GPU;
  *rates = (utilization_t){index_listed("FAKE_BUSY", index) ? 97 : 0, 0};
  return 0;
}
static int milliwatt(void *handle, const char *name, unsigned otherwise, unsigned *found) {
  *found = 1000 * (unsigned)of_gpu(name, index_of(handle), otherwise);
  return 0;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *found) {
  ENTER_GPU;
  (void)index;
  return milliwatt(handle, "FAKE_POWER", 71, found);
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *found) {
  ENTER_GPU;
  (void)index;
  return milliwatt(handle, "FAKE_POWER_LIMIT", 700, found);
}
int nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *found) {
  ENTER_GPU;
  (void)index;
  return milliwatt(handle, "FAKE_POWER_DEFAULT", 700, found);
}
int nvmlDeviceGetBAR1MemoryInfo(void *handle, memory_t *memory) {
  ENTER_GPU;
  memory->total = (unsigned long long)of_gpu("FAKE_BAR1_MIB", index, 131072) << 20;
  memory->used = 2ull << 20;
  memory->free = memory->total - memory->used;
  return 0;
}

/* --- links --------------------------------------------------------------------------- */

static int links_of(int index) { return (int)of_gpu("FAKE_NVLINKS", index, 0); }
int nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *active) {
  ENTER_GPU;
  if (!links_of(index)) return NOT_SUPPORTED;
  if ((int)link >= links_of(index)) return INVALID_ARGUMENT;
  *active = of_gpu("FAKE_NVLINK_DOWN", index, -1) != (long)link;
  return 0;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, unsigned link, unsigned *type) {
  ENTER_GPU;
  (void)index;
  (void)link;
  *type = number("FAKE_SWITCH", 0) ? 2 : 0;
  return 0;
}
/* Links go round robin to the other GPUs, or to four switches. */
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *handle, unsigned link, pci_t *pci) {
  ENTER_GPU;
  int others = number("FAKE_GPUS", 0) - 1;
  int to = others > 0 ? (index + 1 + (int)link % others) % (others + 1) : 0;
  pci_of(pci, number("FAKE_SWITCH", 0) ? 1 + link % 4 : bus_of(to));
  return 0;
}
int nvmlDeviceGetNvLinkErrorCounter(void *handle, unsigned link, unsigned counter,
                                    unsigned long long *count) {
  ENTER_GPU;
  (void)link;
  *count = counter == 0 ? (unsigned long long)of_gpu("FAKE_NVLINK_ERRORS", index, 0) : 0;
  return 0;
}
int nvmlDeviceGetFieldValues(void *handle, int count, field_t *fields) {
  ENTER_GPU;
  for (field_t *field = fields; field < fields + count; field++) {
    field->code = 0;
    if (field->id == NVML_FI_RECOVERY_ACTION) {
      field->type = 1;          /* unsigned int: the rest of the union is not to be read */
      field->value = 0xdeadull << 32 | (unsigned)of_gpu("FAKE_RECOVERY", index, 0);
#ifdef OLD_DRIVER
      field->code = NOT_SUPPORTED;
#endif
    } else if (field->id == NVML_FI_MEMORY_TEMP) {
      field->type = 1;
      field->value = 0xdeadull << 32 | (unsigned)of_gpu("FAKE_MEMORY_TEMPERATURE", index, 41);
    } else if (field->id == NVML_FI_NVLINK_RCV_ERRORS) {
      field->type = 3;          /* unsigned long long */
      field->value = (unsigned long long)of_gpu("FAKE_NVLINK_ERRORS", index, 0);
#ifdef OLD_DRIVER
      field->code = NOT_SUPPORTED;
#endif
    } else {
      field->code = NOT_SUPPORTED;
    }
  }
  return 0;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetGpuFabricInfoV(void *handle, fabric_t *info) {
  ENTER_GPU;
  long version = of_gpu("FAKE_FABRIC_VERSION", index, 3);
  if (info->version != (version == 3 ? 0x3000028u : 0x2000024u)) return VERSION_MISMATCH;
  info->state = (unsigned)of_gpu("FAKE_FABRIC", index, 0);
  memset(info->uuid, (int)of_gpu("FAKE_FABRIC_UUID", index, 0), sizeof info->uuid);
  info->status = (int)of_gpu("FAKE_FABRIC_STATUS", index, 0);
  info->clique = (unsigned)of_gpu("FAKE_FABRIC_CLIQUE", index, 0);
  info->mask = (unsigned)of_gpu("FAKE_FABRIC_MASK", index, 0);
  if (version == 3) info->summary = (unsigned char)of_gpu("FAKE_FABRIC_SUMMARY", index, 0);
  return 0;
}
#endif
int nvmlDeviceGetTopologyCommonAncestor(void *handle, void *other, unsigned *level) {
  ENTER_GPU;
  int socket = number("FAKE_PER_SOCKET", 1000);
  long near = index / socket == index_of(other) / socket ? 40 : 50;
  *level = (unsigned)of_gpu("FAKE_TOPOLOGY", index, near);
  return 0;
}
int nvmlDeviceGetP2PStatus(void *handle, void *other, int what, unsigned *status) {
  ENTER_GPU;
  (void)other;
  if (what < 0 || what > 2) return INVALID_ARGUMENT;
  *status = (unsigned)of_gpu(what == 2 ? "FAKE_P2P_NVLINK" : "FAKE_P2P", index,
                             of_gpu("FAKE_P2P", index, 0));
  return 0;
}
