// Of this library only types are named: see README.md.
#pragma once
typedef struct cublasLtContext* cublasLtHandle_t;
