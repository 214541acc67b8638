/* What `delegraph.h` needs of <stdint.h>, in the compiler's own words for its target: no C library and no headers of a compiler are needed. */
#ifndef DELEGRAPH_FREESTANDING_STDINT_H
#define DELEGRAPH_FREESTANDING_STDINT_H

typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define UINTPTR_MAX __UINTPTR_MAX__
#define UINT32_C(value) value##U
#define UINT64_C(value) value##ULL

#endif
