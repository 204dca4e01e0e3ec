"use strict";

const $ = id => document.getElementById(id);
let client;

const append = list => (from, what) => {
  const line = document.createElement("li");
  line.textContent = `${from}: ${what}`;
  $(list).append(line);
};

$("account").onsubmit = event => {
  event.preventDefault();
  client = new Client($("url").value, $("jid").value, $("password").value,
    { state: state => { $("state").textContent = state; }, message: append("talk"), presence: append("people"), entry: append("feed") });
};

$("contact").onsubmit = event => {
  event.preventDefault();
  client.follow($("author").value);
};

$("read").onclick = () => client.read($("author").value);

$("blog").onsubmit = event => {
  event.preventDefault();
  client.publish($("title").value);
};

$("message").onsubmit = event => {
  event.preventDefault();
  client.say($("to").value, $("body").value);
};
