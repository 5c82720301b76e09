// Lays the pictures of a place over each other, with a divider and zoom. Without this script they are side by side.
"use strict";
(() => {
  const LARGEST = 16;

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function chooser(label, titles, chosen) {
    const select = make("select");
    titles.forEach((title, i) => select.append(new Option(title, i, i === chosen, i === chosen)));
    return [make("label", {}, `${label} `, select), select];
  }

  function zoomButtons(view) {
    const steps = [["Zoom out", "\u2212", () => view.zoom(0.5)], ["Zoom in", "+", () => view.zoom(2)],
      ["Whole picture", "Whole picture", () => view.reset()]];
    return steps.map(([name, sign, act]) => {
      const button = make("button", { type: "button", "aria-label": name, title: name }, sign);
      button.addEventListener("click", act);
      return button;
    });
  }

  // Scale and offset of both layers and the place of the divider, kept within the frame.
  class View {
    constructor(stage, range, shown, metres) {
      this.bar = metres ? make("div", { class: "scale-bar", "aria-hidden": "true" }) : null;
      if (this.bar) stage.append(this.bar);
      Object.assign(this, { stage, range, shown, metres, scale: 1, x: 0, y: 0 });
    }
    draw() {
      const { width, height } = this.stage.getBoundingClientRect();
      this.x = Math.min(0, Math.max(width * (1 - this.scale), this.x));
      this.y = Math.min(0, Math.max(height * (1 - this.scale), this.y));
      this.stage.style.setProperty("--move", `translate(${this.x}px, ${this.y}px) scale(${this.scale})`);
      this.stage.style.setProperty("--split", `${this.range.value}%`);
      this.stage.classList.toggle("zoomed", this.scale > 1);
      this.shown.textContent = `${this.scale}\u00d7`;
      if (this.bar) this.measure(this.metres / this.scale);
    }
    measure(metres) {
      const power = 10 ** Math.floor(Math.log10(0.3 * metres));
      const length = Math.max(...[1, 2, 5].map((step) => step * power).filter((one) => one <= 0.3 * metres));
      this.bar.style.width = `${(100 * length) / metres}%`;
      this.bar.textContent = length >= 1000 ? `${length / 1000}\u00a0km` : `${length}\u00a0m`;
    }
    zoom(factor, at) {
      const { width, height } = this.stage.getBoundingClientRect();
      const [px, py] = at || [width / 2, height / 2];
      const scale = Math.min(LARGEST, Math.max(1, this.scale * factor));
      this.x = px - ((px - this.x) * scale) / this.scale;
      this.y = py - ((py - this.y) * scale) / this.scale;
      this.scale = scale;
      this.draw();
    }
    reset() {
      this.scale = 1;
      this.draw();
    }
    move(dx, dy) {
      this.x += dx;
      this.y += dy;
      this.draw();
    }
    split(percent) {
      this.range.value = percent;
      this.draw();
    }
  }

  function listenToKeys(stage, view) {
    const pans = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") view.zoom(2);
      else if (event.key === "-") view.zoom(0.5);
      else if (event.key === "0") view.reset();
      else if (event.key in pans && view.scale > 1) view.move(...pans[event.key]);
      else if (event.key === "ArrowLeft" || event.key === "ArrowRight")
        view.split(Number(view.range.value) + (event.key === "ArrowLeft" ? -5 : 5));
      else return;
      event.preventDefault();
    });
  }

  // The divider is dragged where it is, or anywhere while nothing is zoomed; else the picture is.
  function listenToPointer(stage, view) {
    const place = (event) => {
      const box = stage.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top, box.width];
    };
    let swipes = true;
    let last = [0, 0];
    stage.addEventListener("pointerdown", (event) => {
      const [x, y, width] = place(event);
      swipes = view.scale === 1 || Math.abs(x - (view.range.value / 100) * width) < 16;
      last = [x, y];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!stage.hasPointerCapture(event.pointerId)) return;
      const [x, y, width] = place(event);
      if (swipes) view.split((100 * x) / width);
      else view.move(x - last[0], y - last[1]);
      last = [x, y];
    });
    stage.addEventListener("dblclick", (event) => view.zoom(2, place(event)));
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      view.zoom(event.deltaY < 0 ? 2 : 0.5, place(event));
      event.preventDefault();
    }, { passive: false });
  }

  function build(figure, pictures, titles) {
    const [left, right] = ["left", "right"].map((side) => chooser(side === "left" ? "Left" : "Right", titles,
      Number(figure.dataset[side])));
    const range = make("input", { type: "range", min: 0, max: 100, value: 50 });
    const shown = make("output", { "aria-label": "Magnification" });
    const layers = ["right", "left"].map((side) => make("div", { class: `layer ${side}` }));
    const name = `${figure.querySelector("figcaption").textContent} Two pictures, one over the other`;
    const stage = make("div", { class: "stage", tabindex: 0, role: "group", "aria-label": name }, ...layers,
      make("div", { class: "divider" }));
    stage.style.aspectRatio = `${pictures[0].width} / ${pictures[0].height}`;
    const view = new View(stage, range, shown, Number(figure.dataset.metres));
    const choose = () => [right[1], left[1]].forEach((select, i) => {
      const copy = pictures[select.value].cloneNode();
      copy.draggable = false;
      layers[i].replaceChildren(copy);
    });
    [left[1], right[1]].forEach((select) => select.addEventListener("change", choose));
    range.addEventListener("input", () => view.draw());
    listenToKeys(stage, view);
    listenToPointer(stage, view);
    choose();
    const controls = make("div", { class: "controls" }, left[0], right[0], make("label", {}, "Divider ", range),
      make("span", { role: "group", "aria-label": "Zoom" }, ...zoomButtons(view), shown));
    const hint = make("p", { class: "hint" }, "Drag to move the divider or, zoomed in, the picture. Keys: arrows, ",
      make("kbd", {}, "+"), ", ", make("kbd", {}, "\u2212"), ", ", make("kbd", {}, "0"), ".");
    return [make("div", { class: "viewer" }, controls, stage, hint), view];
  }

  function offer(figure) {
    const gallery = figure.querySelector(".gallery");
    const pictures = [...gallery.querySelectorAll("img")];
    const titles = [...gallery.querySelectorAll(".picture span")].map((span) => span.textContent);
    const button = make("button", { type: "button", class: "toggle", "aria-expanded": "false" }, "Swipe and zoom");
    let built = null;
    const toggle = () => {
      if (!built) {
        built = build(figure, pictures, titles);
        button.after(built[0]);
      }
      const open = figure.classList.toggle("opened");
      button.setAttribute("aria-expanded", String(open));
      built[0].hidden = !open;
      if (open) built[1].draw();
    };
    button.addEventListener("click", toggle);
    pictures.forEach((picture) => picture.addEventListener("click", () => figure.classList.contains("opened") || toggle()));
    figure.prepend(button);
    if ("open" in figure.dataset) toggle();
  }

  document.querySelectorAll("figure.compare").forEach(offer);
})();
