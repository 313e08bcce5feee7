// Of this library only types are named: see README.md.
#pragma once
typedef struct cublasContext* cublasHandle_t;
enum cublasStatus_t : int;
