/*
 * oom - whom the kernel takes when memory runs out.
 */
#ifndef MASTER_OOM_H
#define MASTER_OOM_H

/*
 * In a child of the master: the kernel is to end it before the master, whose death costs every
 * connection of the host. Adds 100 (a tenth of the memory, proc(5)) to what it has of the master,
 * for which no privilege is needed. Where it cannot be set nothing happens.
 */
void oom_before_master(void);

#endif
