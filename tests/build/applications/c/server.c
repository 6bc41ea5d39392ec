/* Answers every request on 127.0.0.1:PORT with what /etc/motd has. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char text[256] = "", request[4096];
    FILE *file = fopen("/etc/motd", "r");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 2 || !file || !fgets(text, sizeof text, file))
        return 2;
    address.sin_port = htons(atoi(argv[1]));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 8))
        return 1;
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0 || read(client, request, sizeof request) < 0)
            return 1;
        dprintf(client, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(text), text);
        close(client);
    }
}
