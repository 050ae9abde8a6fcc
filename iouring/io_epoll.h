/*
 * The back end for nodes whose seccomp profile, sysctl or kernel refuses io_uring: the same
 * promises over edge-triggered epoll and plain system calls.
 */
#pragma once

#include "iouring/io_driver.h"

/* The driver's table; static storage. For io_create. */
const struct io_driver *io_epoll_driver(void);
