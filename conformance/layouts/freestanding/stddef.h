/* What `delegraph.h` needs of <stddef.h>, see stdint.h. */
#ifndef DELEGRAPH_FREESTANDING_STDDEF_H
#define DELEGRAPH_FREESTANDING_STDDEF_H

typedef __SIZE_TYPE__ size_t;
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)

#endif
