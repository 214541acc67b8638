/* A Vulkan layer that counts, in the same way for whoever runs under it: what each submitted command buffer holds, and what a device is asked for.
 *
 *   VK_INSTANCE_LAYERS=VK_LAYER_DELEGRAPH_count DELEGRAPH_COUNT_FILE=FILE PROGRAM
 *
 * At the end of the process FILE has one JSON object of totals. What a run costs is the difference between two processes that differ in the number
 * of runs. Commands are counted as often as they are submitted, not as often as they are recorded.
 *
 *   dispatches, barriers   commands of these kinds; a barrier command counts once, whatever it lists
 *   dispatch_bytes         the ranges of all buffers that each dispatch can reach through its descriptors
 *   copies, copy_bytes     commands between buffers, fills and updates included
 *   submits                calls that hand over commands
 *   pipelines, pipeline_ms compute pipelines, and the time inside their creation
 *   allocations            live_bytes, peak_bytes: of device memory
 *
 * It is a tool for benchmarks: handles that it does not know are passed on and not counted, and nothing is ever refused. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_SETS 8
#define MAX_BINDINGS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- maps from handles to what is known of them */

typedef struct Entry {
  struct Entry *next;
  uint64_t key;
  char kind;
  void *value;
} Entry;

static Entry *buckets[1 << 16];

static Entry **slot(char kind, uint64_t key) {
  Entry **at = &buckets[((key >> 4) * 2654435761u + (unsigned)kind) & 0xffff];
  while (*at && ((*at)->key != key || (*at)->kind != kind)) at = &(*at)->next;
  return at;
}

static void *find(char kind, uint64_t key) {
  Entry *entry = *slot(kind, key);
  return entry ? entry->value : NULL;
}

/* The value of a handle, zeroed at first. */
static void *make(char kind, uint64_t key, size_t size) {
  Entry **at = slot(kind, key);
  if (!*at) {
    *at = calloc(1, sizeof(Entry));
    (*at)->key = key;
    (*at)->kind = kind;
    (*at)->value = calloc(1, size);
  }
  return (*at)->value;
}

static void forget(char kind, uint64_t key) {
  Entry **at = slot(kind, key), *entry = *at;
  if (!entry) return;
  *at = entry->next;
  free(entry->value);
  free(entry);
}

/* ---- what is counted */

typedef struct {
  uint64_t dispatches, barriers, copies, copy_bytes, dispatch_bytes;
} Work;

typedef struct {
  uint64_t bytes[MAX_BINDINGS];
} Set;

typedef struct {
  Work work;
  Set bound[MAX_SETS];
} Commands;

typedef struct {
  uint32_t count;
  VkDescriptorUpdateTemplateEntry entries[MAX_BINDINGS];
} Template;

static Work done;
static uint64_t submits, pipelines, allocations, live_bytes, peak_bytes;
static double pipeline_ms;

static void add(Work *to, const Work *from) {
  to->dispatches += from->dispatches;
  to->barriers += from->barriers;
  to->copies += from->copies;
  to->copy_bytes += from->copy_bytes;
  to->dispatch_bytes += from->dispatch_bytes;
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("DELEGRAPH_COUNT_FILE");
  FILE *file = path && (submits || pipelines) ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file,
          "{\"dispatches\": %llu, \"barriers\": %llu, \"copies\": %llu, \"copy_bytes\": %llu, \"dispatch_bytes\": %llu, \"submits\": %llu, "
          "\"pipelines\": %llu, \"pipeline_ms\": %.3f, \"allocations\": %llu, \"live_bytes\": %llu, \"peak_bytes\": %llu}\n",
          (unsigned long long)done.dispatches, (unsigned long long)done.barriers, (unsigned long long)done.copies,
          (unsigned long long)done.copy_bytes, (unsigned long long)done.dispatch_bytes, (unsigned long long)submits,
          (unsigned long long)pipelines, pipeline_ms, (unsigned long long)allocations, (unsigned long long)live_bytes,
          (unsigned long long)peak_bytes);
  fclose(file);
}

/* ---- the next one in the chain, for each instance and device */

typedef struct {
  PFN_vkGetInstanceProcAddr get;
  PFN_vkDestroyInstance destroy;
} InstanceNext;

#define DEVICE_FUNCTIONS(X)                                                                                                                  \
  X(DestroyDevice) X(AllocateMemory) X(FreeMemory) X(CreateBuffer) X(DestroyBuffer) X(CreateComputePipelines) X(BeginCommandBuffer)          \
  X(CmdDispatch) X(CmdDispatchBase) X(CmdDispatchIndirect) X(CmdPipelineBarrier) X(CmdPipelineBarrier2) X(CmdPipelineBarrier2KHR)            \
  X(CmdCopyBuffer) X(CmdCopyBuffer2) X(CmdCopyBuffer2KHR) X(CmdFillBuffer) X(CmdUpdateBuffer) X(CmdBindDescriptorSets)                       \
  X(CmdPushDescriptorSetKHR) X(CmdPushDescriptorSetWithTemplateKHR) X(UpdateDescriptorSets) X(UpdateDescriptorSetWithTemplate)               \
  X(UpdateDescriptorSetWithTemplateKHR) X(CreateDescriptorUpdateTemplate) X(CreateDescriptorUpdateTemplateKHR)                               \
  X(CmdExecuteCommands) X(QueueSubmit) X(QueueSubmit2) X(QueueSubmit2KHR)

typedef struct {
  PFN_vkGetDeviceProcAddr get;
#define FIELD(name) PFN_vk##name name;
  DEVICE_FUNCTIONS(FIELD)
#undef FIELD
} DeviceNext;

/* Dispatchable handles begin with a pointer to the loader's table, the same for all children of an instance or device. */
#define KEY(handle) ((uint64_t)(uintptr_t) * (void **)(handle))
#define ID(handle) ((uint64_t)(uintptr_t)(handle))

static DeviceNext *next(void *handle) {
  pthread_mutex_lock(&lock);
  DeviceNext *found = find('D', KEY(handle));
  pthread_mutex_unlock(&lock);
  return found;
}

/* ---- memory and pipelines */

static VKAPI_ATTR VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *a,
                                                     VkDeviceMemory *memory) {
  VkResult result = next(device)->AllocateMemory(device, info, a, memory);
  if (result != VK_SUCCESS) return result;
  pthread_mutex_lock(&lock);
  *(uint64_t *)make('M', ID(*memory), sizeof(uint64_t)) = info->allocationSize;
  allocations++;
  live_bytes += info->allocationSize;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  pthread_mutex_unlock(&lock);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory, const VkAllocationCallbacks *a) {
  pthread_mutex_lock(&lock);
  uint64_t *size = find('M', ID(memory));
  if (size) live_bytes -= *size;
  forget('M', ID(memory));
  pthread_mutex_unlock(&lock);
  next(device)->FreeMemory(device, memory, a);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateBuffer(VkDevice device, const VkBufferCreateInfo *info, const VkAllocationCallbacks *a, VkBuffer *buffer) {
  VkResult result = next(device)->CreateBuffer(device, info, a, buffer);
  if (result != VK_SUCCESS) return result;
  pthread_mutex_lock(&lock);
  *(uint64_t *)make('B', ID(*buffer), sizeof(uint64_t)) = info->size;
  pthread_mutex_unlock(&lock);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL DestroyBuffer(VkDevice device, VkBuffer buffer, const VkAllocationCallbacks *a) {
  pthread_mutex_lock(&lock);
  forget('B', ID(buffer));
  pthread_mutex_unlock(&lock);
  next(device)->DestroyBuffer(device, buffer, a);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                                             const VkComputePipelineCreateInfo *infos, const VkAllocationCallbacks *a,
                                                             VkPipeline *made) {
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  VkResult result = next(device)->CreateComputePipelines(device, cache, count, infos, a, made);
  clock_gettime(CLOCK_MONOTONIC, &end);
  pthread_mutex_lock(&lock);
  pipelines += count;
  pipeline_ms += (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
  pthread_mutex_unlock(&lock);
  return result;
}

/* ---- descriptors */

static void note(Set *set, uint32_t binding, VkDescriptorType type, const VkDescriptorBufferInfo *info) {
  int buffer = type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER || type == VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER ||
               type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC || type == VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC;
  if (binding >= MAX_BINDINGS) return;
  set->bytes[binding] = 0;
  if (!buffer || !info) return;
  uint64_t *size = find('B', ID(info->buffer));
  set->bytes[binding] = info->range != VK_WHOLE_SIZE ? info->range : size ? *size - info->offset : 0;
}

static void write_set(Set *set, const VkWriteDescriptorSet *write) {
  for (uint32_t i = 0; i < write->descriptorCount; i++)
    note(set, write->dstBinding + i, write->descriptorType, write->pBufferInfo ? &write->pBufferInfo[i] : NULL);
}

static void write_template(Set *set, const Template *template, const void *data) {
  for (uint32_t e = 0; template && e < template->count; e++) {
    const VkDescriptorUpdateTemplateEntry *entry = &template->entries[e];
    for (uint32_t i = 0; i < entry->descriptorCount; i++)
      note(set, entry->dstBinding + i, entry->descriptorType,
           (const VkDescriptorBufferInfo *)((const char *)data + entry->offset + i * entry->stride));
  }
}

static VKAPI_ATTR void VKAPI_CALL UpdateDescriptorSets(VkDevice device, uint32_t writes, const VkWriteDescriptorSet *write, uint32_t copies,
                                                       const VkCopyDescriptorSet *copy) {
  pthread_mutex_lock(&lock);
  for (uint32_t i = 0; i < writes; i++) write_set(make('S', ID(write[i].dstSet), sizeof(Set)), &write[i]);
  pthread_mutex_unlock(&lock);
  next(device)->UpdateDescriptorSets(device, writes, write, copies, copy);
}

static VkResult keep_template(VkResult result, const VkDescriptorUpdateTemplateCreateInfo *info, const VkDescriptorUpdateTemplate *template) {
  if (result != VK_SUCCESS) return result;
  pthread_mutex_lock(&lock);
  Template *kept = make('T', ID(*template), sizeof(Template));
  kept->count = info->descriptorUpdateEntryCount < MAX_BINDINGS ? info->descriptorUpdateEntryCount : MAX_BINDINGS;
  memcpy(kept->entries, info->pDescriptorUpdateEntries, kept->count * sizeof(*kept->entries));
  pthread_mutex_unlock(&lock);
  return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateDescriptorUpdateTemplate(VkDevice device, const VkDescriptorUpdateTemplateCreateInfo *info,
                                                                     const VkAllocationCallbacks *a, VkDescriptorUpdateTemplate *template) {
  return keep_template(next(device)->CreateDescriptorUpdateTemplate(device, info, a, template), info, template);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateDescriptorUpdateTemplateKHR(VkDevice device, const VkDescriptorUpdateTemplateCreateInfo *info,
                                                                        const VkAllocationCallbacks *a, VkDescriptorUpdateTemplate *template) {
  return keep_template(next(device)->CreateDescriptorUpdateTemplateKHR(device, info, a, template), info, template);
}

static void by_template(VkDescriptorSet set, VkDescriptorUpdateTemplate template, const void *data) {
  pthread_mutex_lock(&lock);
  write_template(make('S', ID(set), sizeof(Set)), find('T', ID(template)), data);
  pthread_mutex_unlock(&lock);
}

static VKAPI_ATTR void VKAPI_CALL UpdateDescriptorSetWithTemplate(VkDevice device, VkDescriptorSet set, VkDescriptorUpdateTemplate template,
                                                                  const void *data) {
  by_template(set, template, data);
  next(device)->UpdateDescriptorSetWithTemplate(device, set, template, data);
}

static VKAPI_ATTR void VKAPI_CALL UpdateDescriptorSetWithTemplateKHR(VkDevice device, VkDescriptorSet set, VkDescriptorUpdateTemplate template,
                                                                     const void *data) {
  by_template(set, template, data);
  next(device)->UpdateDescriptorSetWithTemplateKHR(device, set, template, data);
}

/* ---- commands */

static Commands *commands(VkCommandBuffer buffer) { return make('C', ID(buffer), sizeof(Commands)); }

static VKAPI_ATTR VkResult VKAPI_CALL BeginCommandBuffer(VkCommandBuffer buffer, const VkCommandBufferBeginInfo *info) {
  pthread_mutex_lock(&lock);
  memset(commands(buffer), 0, sizeof(Commands));
  pthread_mutex_unlock(&lock);
  return next(buffer)->BeginCommandBuffer(buffer, info);
}

static VKAPI_ATTR void VKAPI_CALL CmdBindDescriptorSets(VkCommandBuffer buffer, VkPipelineBindPoint point, VkPipelineLayout layout, uint32_t first,
                                                        uint32_t count, const VkDescriptorSet *sets, uint32_t offsets, const uint32_t *offset) {
  pthread_mutex_lock(&lock);
  for (uint32_t i = 0; i < count && first + i < MAX_SETS; i++) {
    Set *known = find('S', ID(sets[i]));
    Set *bound = &commands(buffer)->bound[first + i];
    if (known) *bound = *known;
    else memset(bound, 0, sizeof(*bound));
  }
  pthread_mutex_unlock(&lock);
  next(buffer)->CmdBindDescriptorSets(buffer, point, layout, first, count, sets, offsets, offset);
}

static VKAPI_ATTR void VKAPI_CALL CmdPushDescriptorSetKHR(VkCommandBuffer buffer, VkPipelineBindPoint point, VkPipelineLayout layout, uint32_t set,
                                                          uint32_t count, const VkWriteDescriptorSet *writes) {
  pthread_mutex_lock(&lock);
  if (set < MAX_SETS) {
    memset(&commands(buffer)->bound[set], 0, sizeof(Set));
    for (uint32_t i = 0; i < count; i++) write_set(&commands(buffer)->bound[set], &writes[i]);
  }
  pthread_mutex_unlock(&lock);
  next(buffer)->CmdPushDescriptorSetKHR(buffer, point, layout, set, count, writes);
}

static VKAPI_ATTR void VKAPI_CALL CmdPushDescriptorSetWithTemplateKHR(VkCommandBuffer buffer, VkDescriptorUpdateTemplate template,
                                                                      VkPipelineLayout layout, uint32_t set, const void *data) {
  pthread_mutex_lock(&lock);
  if (set < MAX_SETS) {
    memset(&commands(buffer)->bound[set], 0, sizeof(Set));
    write_template(&commands(buffer)->bound[set], find('T', ID(template)), data);
  }
  pthread_mutex_unlock(&lock);
  next(buffer)->CmdPushDescriptorSetWithTemplateKHR(buffer, template, layout, set, data);
}

static void dispatch(VkCommandBuffer buffer) {
  pthread_mutex_lock(&lock);
  Commands *of = commands(buffer);
  of->work.dispatches++;
  for (int s = 0; s < MAX_SETS; s++)
    for (int b = 0; b < MAX_BINDINGS; b++) of->work.dispatch_bytes += of->bound[s].bytes[b];
  pthread_mutex_unlock(&lock);
}

static VKAPI_ATTR void VKAPI_CALL CmdDispatch(VkCommandBuffer buffer, uint32_t x, uint32_t y, uint32_t z) {
  dispatch(buffer);
  next(buffer)->CmdDispatch(buffer, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL CmdDispatchBase(VkCommandBuffer buffer, uint32_t a, uint32_t b, uint32_t c, uint32_t x, uint32_t y, uint32_t z) {
  dispatch(buffer);
  next(buffer)->CmdDispatchBase(buffer, a, b, c, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL CmdDispatchIndirect(VkCommandBuffer buffer, VkBuffer from, VkDeviceSize offset) {
  dispatch(buffer);
  next(buffer)->CmdDispatchIndirect(buffer, from, offset);
}

static void count(VkCommandBuffer buffer, Work work) {
  pthread_mutex_lock(&lock);
  add(&commands(buffer)->work, &work);
  pthread_mutex_unlock(&lock);
}

static VKAPI_ATTR void VKAPI_CALL CmdPipelineBarrier(VkCommandBuffer buffer, VkPipelineStageFlags from, VkPipelineStageFlags to,
                                                     VkDependencyFlags flags, uint32_t memories, const VkMemoryBarrier *memory, uint32_t buffers,
                                                     const VkBufferMemoryBarrier *of_buffer, uint32_t images,
                                                     const VkImageMemoryBarrier *of_image) {
  count(buffer, (Work){.barriers = 1});
  next(buffer)->CmdPipelineBarrier(buffer, from, to, flags, memories, memory, buffers, of_buffer, images, of_image);
}

static VKAPI_ATTR void VKAPI_CALL CmdPipelineBarrier2(VkCommandBuffer buffer, const VkDependencyInfo *info) {
  count(buffer, (Work){.barriers = 1});
  next(buffer)->CmdPipelineBarrier2(buffer, info);
}

static VKAPI_ATTR void VKAPI_CALL CmdPipelineBarrier2KHR(VkCommandBuffer buffer, const VkDependencyInfo *info) {
  count(buffer, (Work){.barriers = 1});
  next(buffer)->CmdPipelineBarrier2KHR(buffer, info);
}

static VKAPI_ATTR void VKAPI_CALL CmdCopyBuffer(VkCommandBuffer buffer, VkBuffer from, VkBuffer to, uint32_t regions, const VkBufferCopy *region) {
  Work work = {.copies = 1};
  for (uint32_t i = 0; i < regions; i++) work.copy_bytes += region[i].size;
  count(buffer, work);
  next(buffer)->CmdCopyBuffer(buffer, from, to, regions, region);
}

static Work copy_of(const VkCopyBufferInfo2 *info) {
  Work work = {.copies = 1};
  for (uint32_t i = 0; i < info->regionCount; i++) work.copy_bytes += info->pRegions[i].size;
  return work;
}

static VKAPI_ATTR void VKAPI_CALL CmdCopyBuffer2(VkCommandBuffer buffer, const VkCopyBufferInfo2 *info) {
  count(buffer, copy_of(info));
  next(buffer)->CmdCopyBuffer2(buffer, info);
}

static VKAPI_ATTR void VKAPI_CALL CmdCopyBuffer2KHR(VkCommandBuffer buffer, const VkCopyBufferInfo2 *info) {
  count(buffer, copy_of(info));
  next(buffer)->CmdCopyBuffer2KHR(buffer, info);
}

static VKAPI_ATTR void VKAPI_CALL CmdFillBuffer(VkCommandBuffer buffer, VkBuffer to, VkDeviceSize offset, VkDeviceSize size, uint32_t word) {
  pthread_mutex_lock(&lock);
  uint64_t *whole = find('B', ID(to));
  uint64_t bytes = size != VK_WHOLE_SIZE ? size : whole ? *whole - offset : 0;
  pthread_mutex_unlock(&lock);
  count(buffer, (Work){.copies = 1, .copy_bytes = bytes});
  next(buffer)->CmdFillBuffer(buffer, to, offset, size, word);
}

static VKAPI_ATTR void VKAPI_CALL CmdUpdateBuffer(VkCommandBuffer buffer, VkBuffer to, VkDeviceSize offset, VkDeviceSize size, const void *data) {
  count(buffer, (Work){.copies = 1, .copy_bytes = size});
  next(buffer)->CmdUpdateBuffer(buffer, to, offset, size, data);
}

static VKAPI_ATTR void VKAPI_CALL CmdExecuteCommands(VkCommandBuffer buffer, uint32_t count_of, const VkCommandBuffer *others) {
  for (uint32_t i = 0; i < count_of; i++) {
    pthread_mutex_lock(&lock);
    Work work = commands(others[i])->work;
    pthread_mutex_unlock(&lock);
    count(buffer, work);
  }
  next(buffer)->CmdExecuteCommands(buffer, count_of, others);
}

static void submit(VkCommandBuffer buffer) {
  Commands *of = find('C', ID(buffer));
  if (of) add(&done, &of->work);
}

static VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit(VkQueue queue, uint32_t infos, const VkSubmitInfo *info, VkFence fence) {
  pthread_mutex_lock(&lock);
  submits++;
  for (uint32_t i = 0; i < infos; i++)
    for (uint32_t c = 0; c < info[i].commandBufferCount; c++) submit(info[i].pCommandBuffers[c]);
  pthread_mutex_unlock(&lock);
  return next(queue)->QueueSubmit(queue, infos, info, fence);
}

static void submit2(uint32_t infos, const VkSubmitInfo2 *info) {
  pthread_mutex_lock(&lock);
  submits++;
  for (uint32_t i = 0; i < infos; i++)
    for (uint32_t c = 0; c < info[i].commandBufferInfoCount; c++) submit(info[i].pCommandBufferInfos[c].commandBuffer);
  pthread_mutex_unlock(&lock);
}

static VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit2(VkQueue queue, uint32_t infos, const VkSubmitInfo2 *info, VkFence fence) {
  submit2(infos, info);
  return next(queue)->QueueSubmit2(queue, infos, info, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit2KHR(VkQueue queue, uint32_t infos, const VkSubmitInfo2 *info, VkFence fence) {
  submit2(infos, info);
  return next(queue)->QueueSubmit2KHR(queue, infos, info, fence);
}

/* ---- instances and devices */

static VKAPI_ATTR VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo *info, const VkAllocationCallbacks *a, VkInstance *instance) {
  VkLayerInstanceCreateInfo *link = (VkLayerInstanceCreateInfo *)info->pNext;
  while (link && (link->sType != VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO || link->function != VK_LAYER_LINK_INFO))
    link = (VkLayerInstanceCreateInfo *)link->pNext;
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr get = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  VkResult result = ((PFN_vkCreateInstance)get(NULL, "vkCreateInstance"))(info, a, instance);
  if (result != VK_SUCCESS) return result;
  pthread_mutex_lock(&lock);
  InstanceNext *kept = make('I', KEY(*instance), sizeof(InstanceNext));
  kept->get = get;
  kept->destroy = (PFN_vkDestroyInstance)get(*instance, "vkDestroyInstance");
  pthread_mutex_unlock(&lock);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL DestroyInstance(VkInstance instance, const VkAllocationCallbacks *a) {
  if (!instance) return;
  pthread_mutex_lock(&lock);
  InstanceNext *kept = find('I', KEY(instance));
  PFN_vkDestroyInstance destroy = kept ? kept->destroy : NULL;
  forget('I', KEY(instance));
  pthread_mutex_unlock(&lock);
  if (destroy) destroy(instance, a);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo *info, const VkAllocationCallbacks *a,
                                                   VkDevice *device) {
  VkLayerDeviceCreateInfo *link = (VkLayerDeviceCreateInfo *)info->pNext;
  while (link && (link->sType != VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO || link->function != VK_LAYER_LINK_INFO))
    link = (VkLayerDeviceCreateInfo *)link->pNext;
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr get_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  PFN_vkGetDeviceProcAddr get = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  VkResult result = ((PFN_vkCreateDevice)get_instance(NULL, "vkCreateDevice"))(physical, info, a, device);
  if (result != VK_SUCCESS) return result;
  pthread_mutex_lock(&lock);
  DeviceNext *kept = make('D', KEY(*device), sizeof(DeviceNext));
  kept->get = get;
#define LOAD(name) kept->name = (PFN_vk##name)get(*device, "vk" #name);
  DEVICE_FUNCTIONS(LOAD)
#undef LOAD
  pthread_mutex_unlock(&lock);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL DestroyDevice(VkDevice device, const VkAllocationCallbacks *a) {
  if (!device) return;
  PFN_vkDestroyDevice destroy = next(device)->DestroyDevice;
  pthread_mutex_lock(&lock);
  forget('D', KEY(device));
  pthread_mutex_unlock(&lock);
  destroy(device, a);
}

static PFN_vkVoidFunction of_device(const char *name) {
#define MINE(function)                                                                                                                       \
  if (!strcmp(name, "vk" #function)) return (PFN_vkVoidFunction)function;
  DEVICE_FUNCTIONS(MINE)
#undef MINE
  return NULL;
}

EXPORT VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char *name) {
  if (!strcmp(name, "vkGetDeviceProcAddr")) return (PFN_vkVoidFunction)vkGetDeviceProcAddr;
  PFN_vkVoidFunction below = next(device)->get(device, name);
  PFN_vkVoidFunction mine = of_device(name);
  return below && mine ? mine : below;
}

EXPORT VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char *name) {
  if (!strcmp(name, "vkGetInstanceProcAddr")) return (PFN_vkVoidFunction)vkGetInstanceProcAddr;
  if (!strcmp(name, "vkGetDeviceProcAddr")) return (PFN_vkVoidFunction)vkGetDeviceProcAddr;
  if (!strcmp(name, "vkCreateInstance")) return (PFN_vkVoidFunction)CreateInstance;
  if (!strcmp(name, "vkDestroyInstance")) return (PFN_vkVoidFunction)DestroyInstance;
  if (!strcmp(name, "vkCreateDevice")) return (PFN_vkVoidFunction)CreateDevice;
  if (!instance) return NULL;
  pthread_mutex_lock(&lock);
  InstanceNext *kept = find('I', KEY(instance));
  pthread_mutex_unlock(&lock);
  PFN_vkVoidFunction below = kept ? kept->get(instance, name) : NULL;
  PFN_vkVoidFunction mine = of_device(name);
  return below && mine ? mine : below;
}

EXPORT VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *version) {
  if (version->loaderLayerInterfaceVersion > 2) version->loaderLayerInterfaceVersion = 2;
  version->pfnGetInstanceProcAddr = vkGetInstanceProcAddr;
  version->pfnGetDeviceProcAddr = vkGetDeviceProcAddr;
  version->pfnGetPhysicalDeviceProcAddr = NULL;
  return VK_SUCCESS;
}
