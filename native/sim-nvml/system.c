/* Functions of the machine as a whole, and the texts of errors. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "rack.h"

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    return leave(version ? copy_text(version, length, the_rack.driver) : NVML_ERROR_INVALID_ARGUMENT);
}

NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    return leave(version ? copy_text(version, length, the_rack.nvml) : NVML_ERROR_INVALID_ARGUMENT);
}

static nvmlReturn_t cuda_version(const char *function, int *version)
{
    nvmlReturn_t result = enter(function);
    if (result != NVML_SUCCESS)
        return result;
    if (version == NULL)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *version = the_rack.cuda;
    return leave(NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version(__func__, version);
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version(__func__, version);
}

/* The name is that of a real process, if there is one: simulated pids may be real ones. */
NVML_API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    nvmlReturn_t result = enter(__func__);
    if (result != NVML_SUCCESS)
        return result;
    if (name == NULL || length == 0)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    char file_name[64];
    (void)snprintf(file_name, sizeof file_name, "/proc/%u/cmdline", pid);
    FILE *file = fopen(file_name, "re");
    if (file == NULL)
        return leave(NVML_ERROR_NOT_FOUND);
    size_t read = fread(name, 1, length - 1, file);
    name[read] = '\0';
    (void)fclose(file);
    return leave(NVML_SUCCESS);
}

static const struct {
    nvmlReturn_t result;
    const char *text;
} texts[] = {
    {NVML_SUCCESS, "Success"},
    {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
    {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
    {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
    {NVML_ERROR_NOT_FOUND, "Not Found"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
    {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
    {NVML_ERROR_TIMEOUT, "Timeout"},
    {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
    {NVML_ERROR_RESET_REQUIRED, "GPU requires reset"},
    {NVML_ERROR_OPERATING_SYSTEM, "The operating system has blocked the request"},
    {NVML_ERROR_IN_USE, "In use by another client"},
    {NVML_ERROR_MEMORY, "Insufficient Memory"},
    {NVML_ERROR_NO_DATA, "No data"},
    {NVML_ERROR_INSUFFICIENT_RESOURCES, "Insufficient Resources"},
    {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"},
};

/* Works without nvmlInit. */
NVML_API const char *nvmlErrorString(nvmlReturn_t result)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].result == result)
            return texts[i].text;
    return "Unknown Error";
}
