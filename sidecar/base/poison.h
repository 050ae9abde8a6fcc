/*
 * Memory that must not be touched: told to AddressSanitizer where there is one, nothing elsewhere.
 * Sanitizers do not see the kernel write; they do see us read what the kernel still owns.
 */
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define OUTRIGGER_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OUTRIGGER_HAS_ASAN 1
#endif
#endif

#ifdef OUTRIGGER_HAS_ASAN
#include <sanitizer/asan_interface.h>
#define MEMORY_POISON(address, size) ASAN_POISON_MEMORY_REGION((address), (size))
#define MEMORY_UNPOISON(address, size) ASAN_UNPOISON_MEMORY_REGION((address), (size))
#else
#define MEMORY_POISON(address, size) ((void)(address), (void)(size))
#define MEMORY_UNPOISON(address, size) ((void)(address), (void)(size))
#endif
