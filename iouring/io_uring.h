/*
 * The io_uring back end.
 */
#pragma once

#include "iouring/io_driver.h"

/* The driver, for io_create; static storage. */
const struct io_driver *io_uring_driver(void);

/* Why a ring could not be had, from the errno of setting it up. */
enum io_refusal io_uring_refusal(int error_number);
