// Shows the values of a chart's marks on hover and on arrow keys.
// Without this script the browser shows the same text as tooltips.
"use strict";
(() => {
  const REACH = 40;

  // The marks are taken where the chart draws them, in its own coordinates.
  function collect(card) {
    return [...card.querySelectorAll(".readings circle")].map((spot) => {
      const title = spot.querySelector("title");
      title.remove();
      return { spot, text: title.textContent, x: Number(spot.getAttribute("cx")), y: Number(spot.getAttribute("cy")) };
    });
  }

  class Reader {
    constructor(card, marks) {
      this.marks = marks;
      this.at = -1;
      this.svg = card.querySelector("svg");
      this.figure = card.closest("figure");
      this.tip = document.createElement("p");
      this.tip.className = "tip";
      this.tip.setAttribute("role", "status");
      this.figure.append(this.tip);
    }
    show(at) {
      this.marks[this.at]?.spot.classList.remove("read");
      this.at = at;
      this.tip.textContent = at < 0 ? "" : this.marks[at].text;
      if (at < 0) return;
      const { spot } = this.marks[at];
      spot.classList.add("read");
      this.place(spot.getBoundingClientRect(), this.figure.getBoundingClientRect());
    }
    place(mark, frame) {
      const left = mark.x + mark.width / 2 - frame.x - this.tip.offsetWidth / 2;
      const above = mark.y - frame.y - this.tip.offsetHeight - 4;
      this.tip.style.left = `${Math.max(0, Math.min(frame.width - this.tip.offsetWidth, left))}px`;
      this.tip.style.top = `${above < 0 ? mark.bottom - frame.y + 4 : above}px`;
    }
    step(by) {
      const last = this.marks.length - 1;
      const first = by > 0 ? 0 : last;
      this.go(this.at < 0 ? first : Math.max(0, Math.min(last, this.at + by)));
    }
    go(at) {
      this.marks[at].spot.scrollIntoView({ block: "nearest", inline: "nearest" });
      this.show(at);
    }
    point(event) {
      const here = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
      let [nearest, reach] = [-1, REACH];
      this.marks.forEach(({ x, y }, i) => {
        const distance = Math.hypot(x - here.x, y - here.y);
        if (distance < reach) [nearest, reach] = [i, distance];
      });
      if (nearest !== this.at) this.show(nearest);
    }
  }

  function listen(card, reader) {
    const keys = {
      ArrowRight: () => reader.step(1), ArrowDown: () => reader.step(1),
      ArrowLeft: () => reader.step(-1), ArrowUp: () => reader.step(-1),
      Home: () => reader.go(0), End: () => reader.go(reader.marks.length - 1), Escape: () => reader.show(-1),
    };
    card.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
      keys[event.key]();
      event.preventDefault();
    });
    card.addEventListener("pointermove", (event) => reader.point(event));
    card.addEventListener("pointerdown", (event) => reader.point(event));
    card.addEventListener("pointerleave", () => reader.show(-1));
    card.addEventListener("blur", () => reader.show(-1));
  }

  document.querySelectorAll("figure > .card").forEach((card) => {
    const marks = collect(card);
    if (marks.length === 0) return;
    card.setAttribute("aria-label", `Chart with ${marks.length} values, read by arrow keys`);
    listen(card, new Reader(card, marks));
  });
})();
