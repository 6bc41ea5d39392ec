FROM php:8.3-fpm
RUN set -eux; \
	apt-get update; \
	apt-get install -y libpng-dev; \
	docker-php-ext-install gd
VOLUME /var/www/html
WORKDIR /var/www/html
