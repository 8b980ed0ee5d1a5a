/* What a program gets from its C library. `names NAME FAMILY` (0, 4 or 6) prints the error, the milliseconds that it
   took, and the addresses. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int count, char **words)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timespec start, end;
    int family = count == 3 ? atoi(words[2]) : 0;
    hints.ai_family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int error = getaddrinfo(words[1], NULL, &hints, &found);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%d %.1f", error, (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6);
    for (; !error && found; found = found->ai_next) {
        char host[64];
        getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST);
        printf(" %s", host);
    }
    puts("");
    return 0;
}
