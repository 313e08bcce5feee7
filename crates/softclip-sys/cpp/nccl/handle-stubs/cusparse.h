// Of this library only types are named: see README.md.
#pragma once
typedef struct cusparseContext* cusparseHandle_t;
enum cusparseStatus_t : int;
