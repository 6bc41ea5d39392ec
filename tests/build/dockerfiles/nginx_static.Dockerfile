FROM nginx:alpine
COPY nginx.conf /etc/nginx/nginx.conf
COPY --link dist/ /usr/share/nginx/html/
STOPSIGNAL SIGQUIT
