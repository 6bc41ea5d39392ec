version: "3"
services:
  a: {}
