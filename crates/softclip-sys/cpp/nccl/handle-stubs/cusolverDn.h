// Of this library only types are named: see README.md.
#pragma once
typedef struct cusolverDnContext* cusolverDnHandle_t;
enum cusolverStatus_t : int;
