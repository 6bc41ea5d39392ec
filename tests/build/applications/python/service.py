import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello of flask\n"


@app.post("/sum")
def total():
    return jsonify(sum=sum(request.get_json()), user=os.getuid() != 0)
