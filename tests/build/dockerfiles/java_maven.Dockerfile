FROM maven:3.9-eclipse-temurin-21 AS build
WORKDIR /build
COPY pom.xml .
RUN mvn -B dependency:go-offline
COPY src ./src
RUN mvn -B package -DskipTests
FROM eclipse-temurin:21-jre
LABEL org.opencontainers.image.title="demo" org.opencontainers.image.licenses=MIT
COPY --from=build /build/target/*.jar /app.jar
ENTRYPOINT exec java $JAVA_OPTS -jar /app.jar
