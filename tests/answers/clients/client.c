/* A client of the C library: client PORT

   For each line "ID NAME" it looks the name up and connects to the addresses in the order of getaddrinfo, as urllib3
   (boto3) does: each has two seconds. It prints "ID ADDRESS MILLISECONDS"; the address is "-" if none accepted. Lines are
   independent: each has a thread. */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define STACK (256 << 10) /* getaddrinfo needs more than the 128 KiB of musl. */

static const char *port;

struct task {
    char id[64], name[256];
};

static int connected(const struct addrinfo *address)
{
    struct timeval patience = {.tv_sec = 2};
    int connection = socket(address->ai_family, SOCK_STREAM, 0);
    /* On Linux this limits connect() too. */
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int failed = connect(connection, address->ai_addr, address->ai_addrlen);
    close(connection);
    return !failed;
}

static void *run(void *argument)
{
    struct task *task = argument;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL, *next;
    struct timespec start, end;
    char host[64] = "-";
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (getaddrinfo(task->name, port, &hints, &found)) found = NULL;
    for (next = found; next && !connected(next); next = next->ai_next) {
    }
    if (next) getnameinfo(next->ai_addr, next->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    if (found) freeaddrinfo(found);
    clock_gettime(CLOCK_MONOTONIC, &end);
    flockfile(stdout);
    printf("%s %s %.1f\n", task->id, host, (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6);
    fflush(stdout);
    funlockfile(stdout);
    free(task);
    return NULL;
}

int main(int count, char **words)
{
    char line[512];
    pthread_attr_t attributes;
    if (count != 2) return 2;
    port = words[1];
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (fgets(line, sizeof line, stdin)) {
        pthread_t thread;
        struct task *task = calloc(1, sizeof *task);
        if (sscanf(line, "%63s %255s", task->id, task->name) != 2) return 2;
        if (pthread_create(&thread, &attributes, run, task)) return 1;
    }
    return 0;
}
